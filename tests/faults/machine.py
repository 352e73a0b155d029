"""A whole machine, kernel included: a User-Mode Linux guest whose root is this one's, to read, and a disk of its own.

Its power can really be cut, and a watchdog really takes it down. Debian has it as `user-mode-linux`.
"""
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cluster"))

from cluster import BUILD  # noqa: E402

KERNEL = "linux.uml"
GUEST = pathlib.Path(__file__).resolve().with_name("guest.py")
PATIENCE = 300  # seconds; everything takes long in a guest
NO_PROGRAMS = "ptrace set fp regs failed"  # the processor has more registers than User-Mode Linux has room for


class Unbootable(Exception):
    """This machine cannot run such a guest."""


class Machine:
    """One after the other `boot`s may do different things with the same disk."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="tt-", dir="/tmp"))
        self.disk = self.directory / "disk"
        with self.disk.open("wb") as file:
            file.truncate(512 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.disk], check=True, stdin=subprocess.DEVNULL)
        self.kernel = None

    def boot(self, task):
        self.kernel = subprocess.Popen(
            [KERNEL, "mem=512M", f"uml_dir={self.directory}", f"ubd0={self.disk}", "root=/dev/root", "rootfstype=hostfs",
             "rootflags=/", "ro", "con=null", "con0=null,fd:1", "init=/usr/bin/python3", "--", GUEST, task, BUILD],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True, env={"TMPDIR": str(self.directory), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"})
        self.lines, self.said = queue.Queue(), []
        threading.Thread(target=self._listen, args=(self.kernel.stdout, self.lines), daemon=True).start()

    @staticmethod
    def _listen(console, lines):
        for line in console:
            lines.put(line)
        lines.put(None)

    def wait(self, pattern, count=1):
        """For a line on its console, or the last of so many; returns the match."""
        while True:
            try:
                line = self.lines.get(timeout=PATIENCE)
            except queue.Empty:
                line = None
            if line is None and any(NO_PROGRAMS in said for said in self.said):
                raise Unbootable("User-Mode Linux cannot run programs on this processor")
            if line is None:
                raise AssertionError(f"the guest did not say {pattern}:\n{''.join(self.said[-80:])}")
            self.said.append(line)
            match = re.search(pattern, line)
            count -= match is not None
            if count == 0:
                return match

    def power_cut(self):
        os.killpg(self.kernel.pid, signal.SIGKILL)
        self.kernel.wait()
        while (line := self.lines.get()) is not None:
            self.said.append(line)

    def close(self):
        if self.kernel and self.kernel.poll() is None:
            self.power_cut()
        shutil.rmtree(self.directory)


def power_cut(machine):
    """All that was acknowledged is there when the machine is on again, and it is primary again by itself."""
    machine.boot("write")
    machine.wait(r"guest: acknowledged \d+", 200)
    machine.power_cut()
    acknowledged = max(int(number) for number in re.findall(r"guest: acknowledged (\d+)$", "".join(machine.said), re.M))
    machine.boot("read")
    there, highest = map(int, machine.wait(r"guest: there (\d+) (\d+)").groups())
    assert there == highest >= acknowledged, f"{acknowledged} rows were acknowledged, {there} are there, up to {highest}"
    return f"{acknowledged} acknowledged, {there} there"


def watchdog(machine):
    """A guard that hangs as primary no longer feeds it: the machine goes down."""
    machine.boot("hang")
    machine.wait("guest: frozen")
    machine.wait("Software Watchdog Timer expired")
    machine.kernel.wait(PATIENCE)
    return "the machine went down"


CHECKS = {"power cut of a machine": power_cut, "watchdog of a machine": watchdog}


def check(name):
    """What was seen; raises what is wrong."""
    machine = Machine()
    try:
        return CHECKS[name](machine)
    finally:
        machine.close()


if __name__ == "__main__":
    for each in sys.argv[1:] or CHECKS:
        print(f"{each}: {check(each)}", flush=True)
