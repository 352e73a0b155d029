"""A cluster whose members are hosts: each has a network namespace, a control group and two small disks of its own.

All of it happens in namespaces that `./dev` makes (mount, network, PID, IPC): whatever ends this program, the kernel
then takes every process, link and mount with it.
"""
import collections
import ctypes
import functools
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cluster"))

import api  # noqa: E402
import processes  # noqa: E402
from clients import Clients  # noqa: E402
from cluster import BUILD, Cluster, Member, as_user, give, merge  # noqa: E402
from disks import Disk, run  # noqa: E402
from wire import Wire  # noqa: E402

NETWORK = "10.213.7"  # exists inside of the private network namespace only
OUTSIDE = 254  # the clients' host number
NOBODY = "02:00:00:00:00:99"  # no network card has this address: what is sent to it is lost in silence
BRIDGE = "02:00:00:00:00:01"
NETNS = pathlib.Path("/run/netns")
RESTART_SEC = 0.1  # as in the unit file
PREVENTS_RESTART = 78
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace):
    """From now on the calling thread's new sockets are in that network namespace."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    finally:
        os.close(descriptor)


def address(number):
    return f"{NETWORK}.{number}"


class Network:
    """A bridge, with the clients on it and a cable to every host. One at a time."""

    def __init__(self):
        if "TTORCH_ISOLATED" not in os.environ:
            raise RuntimeError("hosts want namespaces of their own: use ./dev test faults, or ./dev soak")
        NETNS.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "none", NETNS)
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "bridge", "type", "bridge")
        run("ip", "link", "set", "bridge", "address", BRIDGE)  # else it changes with the cables
        run("ip", "address", "add", f"{address(OUTSIDE)}/24", "dev", "bridge")
        run("ip", "link", "set", "bridge", "up")
        self._lock = threading.Lock()
        self._cuts = collections.Counter()  # faults overlap: what two have cut is whole when both are healed
        self._wires = {}

    def close(self):
        run("ip", "link", "delete", "bridge")
        run("umount", NETNS)

    def add(self, host):
        run("ip", "netns", "add", host.name)
        run("ip", "link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        run("ip", "link", "set", host.name, "master", "bridge", "up")
        run("ip", "-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            run("ip", "-n", host.name, "link", "set", link, "up")

    def remove(self, host):
        self.rewire(host)
        run("ip", "link", "delete", host.name)
        run("ip", "netns", "delete", host.name)

    def wire(self, host, sent, received):
        """A bad cable (wire.py) in place of the good one; returns whether that was there."""
        if host in self._wires:
            return False
        self._wires[host] = Wire(host, sent, received)
        return True

    def rewire(self, host):
        wire = self._wires.pop(host, None)
        if wire:
            wire.close()

    def _count(self, what, step, change):
        with self._lock:
            self._cuts[what] += step
            if self._cuts[what] == max(step, 0):  # the first cut, or the last mending
                change()

    def unplug(self, host):
        self._count(host.name, 1, lambda: run("ip", "link", "set", host.name, "down"))

    def plug(self, host):
        self._count(host.name, -1, lambda: run("ip", "link", "set", host.name, "up"))

    def _neighbour(self, verb, sender, receiver, *more):
        namespace, device = (("-n", sender.name), "eth0") if sender else ((), "bridge")
        target = receiver.address if receiver else address(OUTSIDE)
        run("ip", *namespace, "neighbour", verb, target, "dev", device, *more)

    def cut(self, sender, receiver):
        """What one sends to the other is lost; the other way is open. None stands for the clients."""
        self._count((sender, receiver), 1, lambda: self._neighbour(
            "replace", sender, receiver, "lladdr", NOBODY, "nud", "permanent"))

    def mend(self, sender, receiver):
        self._count((sender, receiver), -1, lambda: self._neighbour("delete", sender, receiver))


class ControlGroups:
    """One for each host. They have no controllers, but can freeze and kill all at once."""

    def __init__(self, directory):
        self.mount = directory / "cgroup"
        self.mount.mkdir()
        run("mount", "-t", "cgroup2", "none", self.mount)
        self.root = self.mount / f"ttorch-{directory.name}"
        self.root.mkdir()

    def add(self, name):
        (self.root / name).mkdir()
        return self.root / name

    def close(self):
        for group in [*self.root.iterdir(), self.root]:
            if group.is_dir():
                group.rmdir()
        run("umount", self.mount)


class Host(Member):
    """A member with a machine around it, and with what systemd does: its daemon is started again whenever it ends."""

    clients = f"{NETWORK}.0/24"
    disk_type = Disk

    def __init__(self, cluster, name, peer_port, postgres_port):
        super().__init__(cluster, name, peer_port, postgres_port)
        self.address = address(int(name.removeprefix("m")))
        self.pgdata = self.directory / "postgres" / "data"
        self.namespace = NETNS / name
        self.group = cluster.groups.add(name)
        self.is_on = False
        self.ends = []  # (time, exit status) of its daemons; those that a fault has killed have -9
        self.switch = threading.RLock()

    def mount(self):
        """A disk for PostgreSQL, one for the daemon's own state; and memory for sockets."""
        run("mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "none", self.directory)
        give(self.directory)
        self.clock = self.directory / "clock"
        self.clock.write_bytes(bytes(8))
        workshop = self.cluster.directory / "disks"
        self.postgres_disk = self.disk_type(f"{self.name}-postgres", self.directory / "postgres", 640, workshop)
        self.daemon_disk = self.disk_type(f"{self.name}-ttorch", self.directory / "ttorch", 256, workshop)
        self.disks = [self.postgres_disk, self.daemon_disk]

    def unmount(self):
        for disk in self.disks:
            disk.close()
        run("umount", self.directory)

    def command(self, program, *words):
        into = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.group / "cgroup.procs")]
        return [*into, "nsenter", f"--net={self.namespace}",
                *as_user([*self.preload(), self.cluster.program(program), *words])]

    def preload(self):
        """What lets its clock be set."""
        return ["env", f"LD_PRELOAD={self.cluster.program('libclock.so')}", f"TTORCH_CLOCK={self.clock}"]

    def set_clock(self, off_by):
        """How far its wall clock is off, in seconds."""
        with self.clock.open("r+b") as file:
            file.write(struct.pack("=q", off_by))

    # ---- power ----

    def start(self):
        with self.switch:
            self.is_on = True
            super().start()

    def supervise(self):
        """Called all the time."""
        with self.switch:
            if not self.is_on or self.daemon is None or self.daemon.poll() is None:
                return
            if not self.ends or self.ends[-1][2] is not self.daemon:
                self.ends.append((time.monotonic(), self.daemon.returncode, self.daemon))
            elif self.daemon.returncode != PREVENTS_RESTART and time.monotonic() > self.ends[-1][0] + RESTART_SEC:
                super().start()

    def has_failed(self):
        """Ends are watched by `supervise`."""
        return False

    def power_cut(self):
        """Every process is gone, the cable is dead, and what was not flushed may be lost, at the same moment."""
        with self.switch:
            self.is_on = False
            self.cluster.network.unplug(self)
            (self.group / "cgroup.kill").write_text("1", encoding="utf-8")
            for disk in self.disks:
                disk.power_cut()
            deadline = time.monotonic() + 20
            while "populated 1" in (self.group / "cgroup.events").read_text(encoding="utf-8"):
                if time.monotonic() > deadline:
                    raise AssertionError(f"{self}: processes are left")
                time.sleep(0.005)
            self.daemon.wait()
            self.daemon = None
            for disk in self.disks:
                disk.power_on()
            self.remove_shared_memory()

    def power_on(self):
        self.cluster.network.plug(self)
        self.start()

    def freeze(self, frozen=True):
        (self.group / "cgroup.freeze").write_text("1" if frozen else "0", encoding="utf-8")

    # ---- processes ----

    def pids(self, pattern):
        """Those of its processes whose command line matches."""
        found = []
        for pid in map(int, (self.group / "cgroup.procs").read_text(encoding="utf-8").split()):
            try:
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if re.search(pattern, words) and processes.is_alive(pid):
                found.append(pid)
        return found

    def crashes(self):
        """Daemons that ended by a signal which no fault here sends."""
        mine = (signal.SIGKILL, signal.SIGTERM)
        return [status for _, status, _ in self.ends if status < 0 and -status not in mine]


class Hosts(Cluster):
    """`Cluster` on hosts. `published` has what the members said about epochs, `clients` what servers acknowledged."""

    member_type = Host

    def __init__(self, data=3, witness=False, readers=0, observers=0, **options):
        self.network, self.clients = Network(), None
        self.published, self.contradictions = {}, []
        self.watched = True  # the members are asked all the time what they publish
        self._closing = threading.Event()
        self._watchers = []
        super().__init__(data, witness, readers, observers, **merge({"postgresql": {
            "slot_keep": "128MB", "diverged_keep": "64MB", "parameters": {"max_wal_size": "96MB"}}}, options))
        for member in self.members:
            self.network.add(member)

    def _copy_programs(self):
        super()._copy_programs()
        shutil.copy2(BUILD / "tests" / "faults" / "libclock.so", self.directory / "bin")

    def _write_files(self):
        super()._write_files()
        for member in self.members:
            member.mount()

    @functools.cached_property
    def groups(self):
        return ControlGroups(self.directory)

    def start(self):
        super().start()
        self._watchers = [threading.Thread(target=self._supervise, daemon=True),
                          threading.Thread(target=self._watch, daemon=True)]
        for watcher in self._watchers:
            watcher.start()
        return self

    def _supervise(self):
        while not self._closing.wait(0.02):
            for member in self.members:
                member.supervise()

    def _watch(self):
        """Whoever says that an epoch is open must name the same primary."""
        while not self._closing.wait(0.05):
            for member in self.members if self.watched else ():
                try:
                    status = api.get(member.socket, "/v1/status", timeout=0.2)[1]
                except Exception:  # what a frozen or dying daemon may do is not the question
                    continue
                if status["open"] and status["primary"]:
                    known = self.published.setdefault(status["epoch"], status["primary"])
                    if known != status["primary"]:
                        self.contradictions.append(f"epoch {status['epoch']}: {known} and {status['primary']}")

    def violations(self):
        """What must never be, and was. Afterwards the clients start anew."""
        found = [f"published: {text}" for text in self.contradictions]
        found += [f"{member}: ttorchd ended with {status}" for member in self.members for status in member.crashes()]
        if self.clients:
            found += self.clients.overlaps()
            connection = self.wait(self.primary, 30, "a primary").connect()
            try:
                lost = self.clients.lost(connection)
            finally:
                connection.close()
            if lost:
                found.append(f"{len(lost)} acknowledged rows are lost: {lost[:10]}")
        return found

    def begin_clients(self):
        """Two for each server: one outside, one on the server's own host."""
        self.primary().query("CREATE TABLE IF NOT EXISTS ledger (number bigint)")
        self.clients = Clients(self.data_members, enter).start()

    def wait_writes(self, timeout=15):
        """Somebody acknowledges what is written from now on."""
        moment = time.monotonic()
        self.wait(lambda: self.clients.wrote_after(moment), timeout, "clients write")

    def close(self):
        self._closing.set()
        for watcher in self._watchers:
            watcher.join()
        if self.clients:
            self.clients.stop()
        for member in self.members:
            if member.is_on:
                member.freeze(False)
                member.power_cut()
            self.network.remove(member)
            member.unmount()
        self.groups.close()
        self.network.close()
        shutil.rmtree(self.directory)
