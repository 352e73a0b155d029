"""A real cluster on loopback in a temporary directory: ttorchd, ttorch-guard and PostgreSQL as an ordinary user.

Nothing here sleeps for an effect: `wait` polls what the members say about themselves.
"""
import http.client
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg2
import yaml

import api
import processes
from ledger import Ledger
from limit import PATIENCE

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = SOURCE / os.environ.get("TTORCH_BUILD", "build")
PROGRAMS = ("daemon/ttorchd", "pgctl/ttorch-guard", "cli/ttorch")
PASSWORD = "only for this test"


def postgres_programs():
    """Directory of the newest PostgreSQL that is supported."""
    versions = [path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max((path for path in versions if 14 <= int(path.parent.name) <= 18), key=lambda path: int(path.parent.name))


def user():
    """Who runs the servers: PostgreSQL refuses root."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def as_user(command):
    """The command line with which `user()` runs the command."""
    if os.geteuid() != 0:
        return [str(word) for word in command]
    return ["setpriv", f"--reuid={user().pw_uid}", f"--regid={user().pw_gid}", "--clear-groups",
            *(str(word) for word in command)]


def give(path):
    """Hands a file or directory to `user()`."""
    os.chown(path, user().pw_uid, user().pw_gid)


def free_ports(count):
    """Below the ephemeral range, so that no outgoing connection takes them before they are used."""
    ports, held = [], []
    while len(ports) < count:
        probe = socket.socket()
        try:
            port = random.randrange(15000, 32000)
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.close()
            continue
        held.append(probe)
        ports.append(port)
    for probe in held:
        probe.close()
    return ports


def merge(base, changes):
    """`changes` over `base`, section by section."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value
    return base


class Member:
    """One ttorchd with its PostgreSQL, or a witness, or an observer with or without one."""

    address = "127.0.0.1"
    clients = "127.0.0.1/32"  # who may log in without a password

    observer = False

    def __init__(self, cluster, name, peer_port, postgres_port):
        self.cluster, self.name, self.peer_port, self.port = cluster, name, peer_port, postgres_port
        self.directory = cluster.directory / name
        self.config = cluster.directory / f"{name}.yaml"
        self.log_file = cluster.directory / f"{name}.log"
        self.pgdata = self.directory / "data"
        self.socket = self.directory / "ttorchd.sock"
        self.topology_file = self.directory / "ttorch" / "topology.json"
        self.daemon = None

    def __repr__(self):
        return self.name

    # ---- settings ----

    def settings(self):
        base = {
            "cluster": "test",
            "member": self.name,
            "members": self.cluster.members_section(),
            "data_directory": str(self.directory / "ttorch"),
            "runtime_directory": str(self.directory),
            "durability": "quorum",
            "lease": "2s",
        }
        if self.port is not None:
            base["replication"] = {"user": "ttorch", "password_file": str(self.cluster.directory / "password")}
            base["postgresql"] = {
                "bin_directory": str(postgres_programs()),
                "data_directory": str(self.pgdata),
                "socket_directory": str(self.directory),
                "listen_addresses": self.address,
                # With mmap a killed PostgreSQL leaves nothing in /dev/shm.
                "parameters": {"shared_buffers": "16MB", "max_connections": "50",
                               "dynamic_shared_memory_type": "mmap"},
                "hba": [f"host all all {self.clients} trust"],
            }
        return base

    def write_config(self, **changes):
        """Changes are merged into the cluster's settings, for this file only."""
        settings = merge(merge(self.settings(), self.cluster.options), changes)
        if self.port is None:
            settings.pop("postgresql", None)
        self.config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        give(self.config)

    # ---- processes ----

    def command(self, program, *words):
        """The command line that runs one of the programs where this member is."""
        return as_user([self.cluster.program(program), *words])

    def start(self):
        with self.log_file.open("ab") as log:
            self.daemon = subprocess.Popen(
                self.command("ttorchd", "--config", self.config), cwd=self.cluster.directory,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TTORCH_TEST": f"{self.directory}/"})

    def signal(self, number):
        self.daemon.send_signal(number)

    def stop(self, timeout=30):
        """SIGTERM: hand over, stop PostgreSQL, exit."""
        self.signal(signal.SIGTERM)
        self.wait_exit(timeout)

    def wait_exit(self, timeout=30):
        """For an end that is expected; returns the exit status."""
        try:
            status = self.daemon.wait(PATIENCE * timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self}: ttorchd did not exit in {PATIENCE * timeout} s") from None
        self.daemon = None
        return status

    def runs(self):
        return self.daemon is not None and self.daemon.poll() is None

    def has_failed(self):
        """It has ended, and nobody meant it to."""
        return self.daemon is not None and self.daemon.poll() is not None

    def postmaster(self):
        """Process id of the running postmaster, None if there is none."""
        try:
            pid = int((self.pgdata / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
            return pid if os.readlink(f"/proc/{pid}/cwd") == str(self.pgdata) and processes.is_alive(pid) else None
        except (OSError, ValueError):
            return None

    def postgres_processes(self):
        pid = self.postmaster()
        return processes.descendants(pid) if pid else []

    def remove_shared_memory(self):
        """What a killed postmaster leaves behind in the kernel; its id is in postmaster.pid."""
        try:
            words = (self.pgdata / "postmaster.pid").read_text(encoding="utf-8").split("\n")[6].split()
            subprocess.run(["ipcrm", "-m", words[1]], stderr=subprocess.DEVNULL, check=False)
        except (OSError, IndexError):
            pass

    def kill_postgres(self):
        os.kill(self.postmaster(), signal.SIGKILL)

    def kill_daemon(self, restart=True):
        self.daemon.kill()
        self.wait_exit()
        if restart:  # as systemd would
            self.start()

    def kill_everything(self):
        """Daemon, guard, postmaster and its children at once, as when a host loses its power."""
        processes.kill_all_in(self.directory)
        if self.daemon is not None:
            self.wait_exit()

    # ---- what it says ----

    def get(self, resource):
        """JSON of a resource, None when nobody answers."""
        try:
            return api.get(self.socket, resource)[1]
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def status(self):
        return self.get("/v1/status")

    def log(self):
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def conninfo(self):
        return f"host={self.address} port={self.port} user=postgres dbname=postgres"

    def connect(self, **more):
        """A superuser's session. Over TCP, as the unix socket wants the user who runs the server."""
        connection = psycopg2.connect(self.conninfo() + " connect_timeout=5", **more)
        connection.autocommit = True
        return connection

    def query(self, sql, *values):
        """The first column of the first row."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                row = cursor.fetchone() if cursor.description else None
                return row[0] if row else None
        finally:
            connection.close()

    def ttorch(self, *words, timeout=60, check=True):
        """Runs the command-line tool against this member and returns what it printed."""
        done = subprocess.run(self.command("ttorch", "--config", self.config, *words), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout, cwd=self.cluster.directory,
                              check=False)
        if check:
            assert done.returncode == 0, f"ttorch {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            return done.stdout
        return done


class Cluster:
    """`data` members with PostgreSQL, named m1, m2, ..., as many witnesses after them as are wanted, then observers with
    PostgreSQL (`readers`) and without. Options are merged into every member's file."""

    member_type = Member

    def __init__(self, data=3, witness=False, readers=0, observers=0, **options):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="tt-", dir="/tmp"))
        give(self.directory)
        self.options = options
        kinds = data * [(True, False)] + int(witness) * [(False, False)] + readers * [(True, True)] + \
            observers * [(False, True)]
        ports = iter(free_ports(2 * len(kinds)))
        self.members = []
        for number, (has_data, observer) in enumerate(kinds, 1):
            member = self.member_type(self, f"m{number}", next(ports), next(ports) if has_data else None)
            member.observer = observer
            self.members.append(member)
        self._copy_programs()
        self._write_files()
        self._ledgers = []

    def _copy_programs(self):
        """The checkout may lie where `user()` cannot go, such as /root."""
        (self.directory / "bin").mkdir()
        for program in PROGRAMS:
            shutil.copy2(BUILD / program, self.directory / "bin")

    def _write_files(self):
        password = self.directory / "password"
        password.write_text(PASSWORD + "\n", encoding="utf-8")
        password.chmod(0o600)
        give(password)
        for member in self.members:
            member.directory.mkdir(mode=0o700)
            give(member.directory)
            member.write_config()

    def members_section(self):
        def kind(member):
            return {**({"postgres": f"{member.address}:{member.port}"} if member.port else {}),
                    **({"observer": True} if member.observer else {} if member.port else {"witness": True})}
        return {m.name: {"peer": f"{m.address}:{m.peer_port}", **kind(m)} for m in self.members}

    def program(self, name):
        return self.directory / "bin" / name

    def __getitem__(self, name):
        return next(member for member in self.members if member.name == name)

    @property
    def data_members(self):
        return [member for member in self.members if member.port is not None]

    @property
    def voters(self):
        return [member for member in self.members if not member.observer]

    # ---- life ----

    def start(self):
        for member in self.members:
            member.start()
        return self

    def found(self):
        """Starts all members and waits for full redundancy."""
        self.start()
        self.wait_redundant(60)
        return self

    def close(self):
        """Leaves no process, no file and no shared memory behind."""
        for ledger in self._ledgers:
            ledger.stop()
        processes.kill_all_in(self.directory)
        for member in self.members:
            if member.daemon is not None:
                member.daemon.wait()
            member.remove_shared_memory()
        shutil.rmtree(self.directory)

    def keep_logs(self, directory):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        for pattern in ("*.yaml", "*.log", "m*/**/*.log"):
            for log in self.directory.glob(pattern):
                shutil.copy(log, directory / str(log.relative_to(self.directory)).replace("/", "-"))

    # ---- what it says ----

    def status(self):
        """What a member in touch with a quorum says; None if there is none."""
        for member in self.members:
            if member.runs():
                status = member.status()
                if status and status["fresh"]:
                    return status
        return None

    def primary(self):
        """The member to which clients are pointed, None if there is none."""
        status = self.status()
        return self[status["primary"]] if status and status["open"] and status["primary"] else None

    def standbys(self):
        primary = self.primary()
        return [member for member in self.data_members if member is not primary]

    def row(self, member):
        """The member's row of the status."""
        status = self.status()
        return next((row for row in status["members"] if row["name"] == member.name), None) if status else None

    def epoch(self):
        status = self.status()
        return status["epoch"] if status else None

    def is_redundant(self):
        """One open primary that all other members follow, each voter counted by the one rule in force. All have to say so:
        one that has just been struck is not missed by the others at once."""
        return all(member.runs() and self.says_redundant(member.status()) for member in self.members)

    def says_redundant(self, status):
        if not status or not status["fresh"] or not status["open"] or len(status["rules"]) != 1:
            return False
        rows = {row["name"]: row for row in status["members"]}
        blind = self[status["self"]].observer  # one observer does not hear another
        return rows.keys() == {member.name for member in self.members} and all(
            row["duty"] == "observer" and (row["state"] == ("streaming" if row["port"] else "running") or
                                           blind and not row["port"] and row["name"] != status["self"]) or
            row["duty"] == "witness" and row["state"] == "running" or
            row["duty"] == "primary" and row["state"] == "running" or
            row["duty"] == "standby" and row["state"] == "streaming" and row["sync"] == "sync"
            for row in rows.values())

    # ---- waiting ----

    def wait(self, predicate, timeout, what):
        """Polls until the predicate returns something true, and returns that."""
        deadline = time.monotonic() + PATIENCE * timeout
        while not (result := predicate()):
            if failed := [member for member in self.members if member.has_failed()]:
                raise AssertionError(f"ttorchd of {failed} has ended by itself, while waiting for: {what}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {PATIENCE * timeout} s: {what}")
            time.sleep(0.03)
        return result

    def wait_redundant(self, timeout=40):
        self.wait(self.is_redundant, timeout, "one primary, and every member follows it")

    def wait_new_primary(self, old, timeout=15):
        return self.wait(lambda: (now := self.primary()) is not old and now, timeout, f"a primary other than {old}")

    def wait_new_epoch(self, old, timeout=15):
        """Another tenure is open, be it of the same member; returns its primary."""
        return self.wait(lambda: (self.epoch() or 0) > old and self.primary(), timeout, f"an open epoch after {old}")

    def describe(self):
        """Everything one wants to know after a failure."""
        parts = []
        for member in self.members:
            status = member.status() if member.runs() else None
            state = "running" if member.runs() else "not running"
            if member.has_failed():
                state = f"ended with {member.daemon.returncode}"
            parts.append(f"==== {member}: {state}")
            if status:
                top = {key: value for key, value in status.items() if key != "members"}
                parts.append(str(top))
                parts += [f"  {row}" for row in status["members"]]
            parts.append("\n".join(member.log().splitlines()[-30:]))
        return "\n".join(parts)

    # ---- clients ----

    def ledger(self):
        """Makes the ledger's table and starts a writer."""
        self.primary().query("CREATE TABLE IF NOT EXISTS ledger (number bigint); TRUNCATE ledger")
        ledger = Ledger([member.conninfo() for member in self.data_members]).start()
        self._ledgers.append(ledger)
        self.wait_ledger(ledger, lambda: len(ledger.acknowledged) > 20, 10)
        return ledger

    def wait_ledger(self, ledger, predicate, timeout):
        try:
            self.wait(predicate, timeout, "the ledger writes")
        except AssertionError as error:
            raise AssertionError(f"{error}: {ledger.last_error}") from None

    def check_ledger(self, ledger, since=None, timeout=10):
        """The ledger writes again, and nothing that was acknowledged is missing."""
        moment = since if since is not None else time.monotonic()
        self.wait_ledger(ledger, lambda: ledger.wrote_after(moment), timeout)
        connection = self.primary().connect()
        try:
            lost = ledger.lost(connection)
        finally:
            connection.close()
        assert not lost, f"{len(lost)} acknowledged rows lost: {lost[:10]}"
