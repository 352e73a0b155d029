"""Planned changes of primary."""
import threading

import pytest


def test_to_a_named_member(trio, ledger):
    """Nothing is lost, and the old primary streams without a rewind."""
    old, target = trio.primary(), trio.standbys()[-1]
    said_before = len(old.log())
    old.ttorch("switchover", "--to", target.name)
    trio.wait(lambda: trio.primary() is target, 15, f"{target} is primary")
    trio.wait_redundant()
    trio.check_ledger(ledger)
    assert trio.row(old)["upstream"] == target.name
    assert "rewind" not in old.log()[said_before:]


def test_to_the_best(trio, ledger):
    """Asked of a standby, without a name."""
    old = trio.primary()
    trio.standbys()[0].ttorch("switchover")
    trio.wait_new_primary(old)
    trio.wait_redundant()
    trio.check_ledger(ledger)


def test_daemon_killed_in_the_middle(trio, ledger):
    """The old primary's, once its PostgreSQL was stopped: started anew it does not know, and yet never starts it as the
    primary again."""
    old, epoch = trio.primary(), trio.epoch()
    asked = threading.Thread(target=old.ttorch, args=("switchover",), kwargs={"check": False}, daemon=True)
    asked.start()
    trio.wait(lambda: old.postmaster() is None, 15, f"PostgreSQL of {old} was stopped")
    old.kill_daemon()
    trio.wait_new_epoch(epoch, 30)
    asked.join()
    trio.wait_redundant(60)
    trio.check_ledger(ledger)
    assert trio.epoch() > epoch


@pytest.mark.parametrize("to", ["nobody", "itself"])
def test_refused(trio, ledger, to):
    """With a reason, and nothing happens."""
    primary, epoch = trio.primary(), trio.epoch()
    done = primary.ttorch("switchover", "--to", primary.name if to == "itself" else "m9", check=False)
    assert done.returncode == 1
    assert (primary.name if to == "itself" else "m9") in done.stderr
    assert (trio.primary(), trio.epoch()) == (primary, epoch)
    trio.check_ledger(ledger)


def test_to_a_dead_member_is_refused(trio, ledger):
    primary, epoch, target = trio.primary(), trio.epoch(), trio.standbys()[0]
    target.kill_everything()
    trio.wait(lambda: trio.row(target)["state"] == "unreachable", 15, f"{target} is missed")
    done = primary.ttorch("switchover", "--to", target.name, check=False)
    assert done.returncode == 1 and target.name in done.stderr
    target.start()
    trio.wait_redundant()
    assert (trio.primary(), trio.epoch()) == (primary, epoch)
    trio.check_ledger(ledger)
