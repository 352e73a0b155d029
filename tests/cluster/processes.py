"""Finding, stopping and killing processes, by id only."""
import os
import pathlib
import signal
import time


def is_alive(pid):
    """Zombies count as dead: nobody may be there to reap a guard."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _runs_in(pid, directory):
    """By its working directory, its command line, or the environment it was started with (PostgreSQL overwrites that)."""
    try:
        cwd = os.readlink(f"/proc/{pid}/cwd")
        if cwd == directory or cwd.startswith(directory + "/"):
            return True
        words = (directory + "/").encode()
        return any(words in pathlib.Path(f"/proc/{pid}/{file}").read_bytes() for file in ("cmdline", "environ"))
    except OSError:
        return False


def all_in(directory):
    """Every live process that works in the directory: daemons, guards, PostgreSQL and its programs."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    return [pid for pid in pids if _runs_in(pid, str(directory)) and is_alive(pid)]


def descendants(pid):
    """The process and all below it."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = pathlib.Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def kill_all_in(directory, timeout=10):
    """SIGKILL until nothing is left. What was forked by one that ended during a round is found in the next, so one
    round that finds nothing is not enough."""
    deadline = time.monotonic() + timeout
    while pids := all_in(directory) or all_in(directory):
        send(pids, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise AssertionError(f"still there after SIGKILL: {pids}")
        time.sleep(0.01)
