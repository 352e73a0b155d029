"""Faults of the primary: another one takes over, nothing acknowledged is lost, and the old one comes back by itself."""
import signal
import time

import psycopg2
import pytest

import processes


def test_postgres_killed(trio, ledger):
    old, epoch = trio.primary(), trio.epoch()
    old.kill_postgres()
    # Whoever is most complete may take over, the old one included: a new epoch it is in any case.
    trio.wait_new_epoch(epoch)
    trio.check_ledger(ledger)
    trio.wait_redundant()
    trio.check_ledger(ledger)
    assert old.runs(), "its daemon has nothing to do with it"


def test_member_dies(trio, ledger):
    """Everything of it at once, as when its host is gone. Then it is switched on again."""
    old = trio.primary()
    old.kill_everything()
    new = trio.wait_new_primary(old)
    trio.check_ledger(ledger)
    old.start()
    trio.wait_redundant()
    assert trio.primary() is new
    assert trio.row(old)["upstream"] == new.name
    trio.check_ledger(ledger)


def test_standby_dies(trio, ledger):
    """The other standby acknowledges meanwhile."""
    primary, epoch = trio.primary(), trio.epoch()
    standby = trio.standbys()[0]
    standby.kill_everything()
    trio.wait(lambda: trio.row(standby)["state"] == "unreachable", 15, f"{standby} is missed")
    trio.check_ledger(ledger)
    standby.start()
    trio.wait_redundant()
    trio.check_ledger(ledger)
    assert (trio.primary(), trio.epoch()) == (primary, epoch)


def test_postgres_frozen(trio, ledger):
    """It neither answers nor ends. Thawed, it is no second primary."""
    old = trio.primary()
    pids = old.postgres_processes()
    processes.send(pids, signal.SIGSTOP)
    try:
        new = trio.wait_new_primary(old, 25)
        trio.check_ledger(ledger)
        epoch = trio.epoch()
    finally:
        processes.send([pid for pid in pids if processes.is_alive(pid)], signal.SIGCONT)
    thawed = time.monotonic()
    while time.monotonic() < thawed + 2:
        try:
            assert old.query("SELECT pg_is_in_recovery()"), f"{old} is writable beside {new}"
        except psycopg2.OperationalError:
            pass  # down, or starting
    trio.wait_redundant()
    assert (trio.primary(), trio.epoch()) == (new, epoch)
    trio.check_ledger(ledger)


@pytest.mark.limit(120)
def test_again_and_again(trio, ledger):
    """Failovers in a row, each time of the one that has just taken over."""
    epochs = [trio.epoch()]
    for _ in range(3):
        old = trio.primary()
        old.kill_postgres()
        trio.wait_new_epoch(epochs[-1])
        epochs.append(trio.epoch())
        trio.wait_redundant()
    assert epochs == sorted(set(epochs))
    trio.check_ledger(ledger)


@pytest.mark.limit(180)
def test_the_coordinator_dies_with_the_primary(make_cluster):
    """Two of five hosts at once, Raft's leader and the primary: both elections are needed."""
    five = make_cluster(5)
    five.found()
    ledger = five.ledger()
    try:
        old = five.primary()
        five.wait(lambda: five.status()["leader"] not in ("", old.name), 30, "the coordinator leaves the primary's host")
        coordinator = next(member for member in five.members if member.name == five.status()["leader"])
        coordinator.kill_everything()
        old.kill_everything()
        five.wait_new_primary(old, 25)
        five.check_ledger(ledger)
        old.start()
        coordinator.start()
        five.wait_redundant(60)
        five.check_ledger(ledger)
    finally:
        ledger.stop()
