"""Faults of ttorchd itself, and restarts: PostgreSQL goes on where it can."""
import os
import pathlib
import signal
import time

import pytest

from cluster import BUILD


def stat(pid):
    """Fields of /proc/PID/stat from the state on."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def servers(cluster):
    return cluster.primary(), cluster.epoch(), [member.postmaster() for member in cluster.data_members]


@pytest.mark.parametrize("duty", ["primary", "standby"])
def test_daemon_killed(trio, ledger, duty):
    """kill -9 of ttorchd alone: no restart of PostgreSQL, no new epoch."""
    before = servers(trio)
    member = trio.primary() if duty == "primary" else trio.standbys()[0]
    member.kill_daemon(restart=True)
    trio.wait(member.status, 10, f"{member} answers again")
    trio.wait_redundant()
    trio.check_ledger(ledger)
    assert servers(trio) == before


def test_daemon_restarted(trio, ledger):
    """SIGUSR1 leaves PostgreSQL to its guard, as an upgrade of ttorchd does."""
    before = servers(trio)
    for member in trio.members:
        member.signal(signal.SIGUSR1)
        assert member.wait_exit(5) == 0
        member.start()
        trio.wait_redundant()
    assert servers(trio) == before
    trio.check_ledger(ledger)


def test_guard_killed(trio, ledger):
    """No guard, no PostgreSQL: the kernel ends it with its guard, and another member takes over."""
    old, epoch = trio.primary(), trio.epoch()
    postmaster = old.postmaster()
    guard = int(stat(postmaster)[1])
    assert "ttorch-guard" in pathlib.Path(f"/proc/{guard}/cmdline").read_text(encoding="utf-8")
    os.kill(guard, signal.SIGKILL)
    trio.wait_new_epoch(epoch)
    trio.wait_redundant()
    trio.check_ledger(ledger)
    assert old.postmaster() != postmaster


def test_primary_without_daemon_is_fenced(trio, ledger):
    """Nobody renews the lease: the guard kills PostgreSQL at the deadline, and another member takes over."""
    old = trio.primary()
    postmaster = old.postmaster()
    old.kill_daemon(restart=False)
    trio.wait_new_primary(old)
    trio.wait(lambda: old.postmaster() is None, 5, f"the guard has killed {postmaster}")
    trio.check_ledger(ledger)
    old.start()
    trio.wait_redundant()
    trio.check_ledger(ledger)


def test_primary_stopped(trio, ledger):
    """SIGTERM hands over first, and the old one comes back without a rewind."""
    old = trio.primary()
    old.stop()
    trio.wait_new_primary(old)
    assert old.postmaster() is None
    trio.check_ledger(ledger)
    old.start()
    trio.wait_redundant()
    trio.check_ledger(ledger)


def test_all_stopped_and_started(trio, ledger):
    for member in trio.members:
        member.signal(signal.SIGTERM)
    for member in trio.members:
        member.wait_exit(30)
        assert member.postmaster() is None
    stopped = time.monotonic()
    trio.start()
    trio.wait_redundant(60)
    trio.check_ledger(ledger, stopped)


def test_all_killed_and_started(trio, ledger):
    """As after a power cut of the whole room."""
    epoch = trio.epoch()
    for member in trio.members:
        member.kill_everything()
    killed = time.monotonic()
    trio.start()
    trio.wait_redundant(60)
    assert trio.epoch() > epoch, "a primary is one at most once per epoch"
    trio.check_ledger(ledger, killed)


@pytest.mark.skipif("asan" in BUILD.name, reason="sanitizers cost memory and time")
def test_idle_cost(trio):
    """An idle ttorchd needs little memory, once it has given back what its start took, and does not spin; `./dev bench
    idle` has the figures. What it takes is the least of three samples: more than that other processes, and work that is
    just due, may cause."""
    pids = [member.daemon.pid for member in trio.members]

    def share(pid, seconds):
        """Of a core, by the time that its threads ran."""
        def spent():
            return sum(int((task / "schedstat").read_text(encoding="utf-8").split()[0])
                       for task in pathlib.Path(f"/proc/{pid}/task").iterdir()) / 1e9
        before, begun = spent(), time.monotonic()
        time.sleep(seconds)  # what is measured is time that passes
        return (spent() - before) / (time.monotonic() - begun)

    for pid in pids:
        trio.wait(lambda pid=pid: int(stat(pid)[21]) * os.sysconf("SC_PAGESIZE") < 10 * 2**20, 15, "memory is given back")
        shares = []
        while len(shares) < 3 and min(shares, default=1) > 0.008:
            shares.append(share(pid, 2))
        assert min(shares) < 0.015, f"shares of a core: {shares}"
