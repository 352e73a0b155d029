"""What processes use, from /proc: processor time, memory, context switches; packets of sockets from `ss`; system calls
from strace, if it may attach."""
import os
import pathlib
import re
import signal
import subprocess
import time

TICK = 1 / os.sysconf("SC_CLK_TCK")


class Usage:
    """Sums over processes and their threads, at one moment."""

    def __init__(self, pids):
        self.at = time.monotonic()
        self.seconds = self.voluntary = 0
        for pid in pids:
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                self.seconds += int((task / "schedstat").read_text(encoding="utf-8").split()[0]) / 1e9
                status = (task / "status").read_text(encoding="utf-8")
                self.voluntary += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[1])

    def since(self, before):
        """(percent of a core, voluntary context switches a second)"""
        seconds = self.at - before.at
        return 100 * (self.seconds - before.seconds) / seconds, (self.voluntary - before.voluntary) / seconds


def memory_mb(pids):
    """Resident, of which what the processes share is counted once a process."""
    total = 0
    for pid in pids:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        total += int(re.search(r"^VmRSS:\s*(\d+)", status, re.MULTILINE)[1])
    return total / 1024


def disk_mb(directory, *leave_out):
    """What the files take on the disk."""
    total = 0
    for path, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if os.path.join(path, name) not in map(str, leave_out)]
        total += sum(os.lstat(os.path.join(path, name)).st_blocks * 512 for name in files)
    return total / 2**20


class Traffic:
    """Segments and bytes so far of a process's TCP connections; `enter` is what brings a command to where it is."""

    def __init__(self, pid, enter=()):
        self.at = time.monotonic()
        done = subprocess.run([*enter, "ss", "-tinpOH"], capture_output=True, text=True, check=True)
        lines = [line for line in done.stdout.splitlines() if f"pid={pid}," in line]
        self.sums = {key: sum(int(found) for line in lines for found in re.findall(rf"\b{key}:(\d+)", line))
                     for key in ("segs_out", "segs_in", "bytes_sent", "bytes_received")}

    def since(self, before):
        """(packets, bytes) a second, sent and received."""
        seconds = self.at - before.at
        rate = {key: (self.sums[key] - before.sums[key]) / seconds for key in self.sums}
        return rate["segs_out"] + rate["segs_in"], rate["bytes_sent"] + rate["bytes_received"]


def system_calls(pid, seconds):
    """(a second, {name: a second}) of one process; (None, {}) where nobody may trace. It slows the process."""
    try:
        strace = subprocess.Popen(["strace", "-f", "-c", "-qq", "-p", str(pid)], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except OSError:
        return None, {}
    time.sleep(seconds)  # the time that is measured
    strace.send_signal(signal.SIGINT)
    _, text = strace.communicate(timeout=30)
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", text, re.MULTILINE)
    calls = {name: int(count) / seconds for count, name in rows if name != "total"}
    return (sum(calls.values()), calls) if calls else (None, {})
