"""What other systems' users have met (docs/SCENARIOS.md) and no other file here shows."""
import os
import shutil
import signal
import subprocess
import time

import psycopg2
import pytest

import processes
from cluster import as_user, postgres_programs


def test_a_second_daemon_with_the_same_file_is_refused(trio, ledger):
    """It ends with a sentence and touches nothing."""
    member, epoch = trio.standbys()[0], trio.epoch()
    postmaster = member.postmaster()
    second = subprocess.run(as_user([trio.program("ttorchd"), "--config", member.config]), cwd=trio.directory,
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode != 0
    assert "in use" in second.stderr
    trio.wait_redundant()
    assert (trio.epoch(), member.postmaster()) == (epoch, postmaster)
    trio.check_ledger(ledger)


def test_a_standby_promoted_by_hand_acknowledges_nothing(trio, ledger):
    """`pg_ctl promote` behind the daemons' back: no commit of it is acknowledged, and it becomes a standby again."""
    primary, standby, epoch = trio.primary(), trio.standbys()[0], trio.epoch()
    subprocess.run(as_user([postgres_programs() / "pg_ctl", "-D", standby.pgdata, "-W", "promote"]), cwd=trio.directory,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    acknowledged = False
    try:
        trio.wait(lambda: not standby.query("SELECT pg_is_in_recovery()"), 5, f"{standby} is promoted")
        standby.query("SET statement_timeout = '5s'; CREATE TABLE astray ()")
        acknowledged = True
    except (AssertionError, psycopg2.Error):
        pass  # it was killed before, or while it waited for standbys that it does not have
    assert not acknowledged, f"{standby} acknowledged a commit beside {primary}"
    trio.wait(lambda: trio.is_redundant() and standby.query("SELECT pg_is_in_recovery()"), 60,
              f"{standby} is a standby again")
    assert (trio.primary(), trio.epoch()) == (primary, epoch)
    trio.check_ledger(ledger)
    assert standby.query("SELECT to_regclass('astray')") is None


def test_primary_and_a_standby_gone(trio, ledger):
    """One of three may not go on alone: what it lacks may have been acknowledged. With the other standby back it may."""
    old, (gone, left) = trio.primary(), trio.standbys()
    epoch = trio.epoch()
    for member in (old, gone):
        member.kill_everything()
    trio.wait(lambda: not left.status()["fresh"], 15, f"{left} knows that it is alone")
    assert left.query("SELECT pg_is_in_recovery()")
    gone.start()
    trio.wait_new_epoch(epoch, 30)
    assert trio.primary() is not old
    trio.check_ledger(ledger)
    old.start()
    trio.wait_redundant(60)
    trio.check_ledger(ledger)


def test_a_standby_that_receives_nothing_is_not_promoted(trio, ledger):
    """Its WAL receiver is frozen, so it leaves the rule; the primary dies: the other one takes over."""
    old, (frozen, complete) = trio.primary(), trio.standbys()
    receiver = frozen.query("SELECT pid FROM pg_stat_wal_receiver")
    os.kill(receiver, signal.SIGSTOP)
    try:
        trio.wait(lambda: trio.row(frozen)["sync"] != "sync", 30, f"{frozen} left the rule")
        trio.wait(lambda: len(trio.status()["rules"]) == 1, 15, "the change of the rule has ended")
        old.kill_everything()
        trio.wait_new_primary(old, 30)
        assert trio.primary() is complete
        trio.check_ledger(ledger)
    finally:
        processes.send([receiver], signal.SIGCONT)
    old.start()
    trio.wait_redundant(60)
    trio.check_ledger(ledger)


def test_the_primary_dies_while_degraded(trio, ledger):
    """Nobody else has what it acknowledged alone, so nobody else may follow it."""
    old, epoch = trio.primary(), trio.epoch()
    receivers = [standby.query("SELECT pid FROM pg_stat_wal_receiver") for standby in trio.standbys()]
    processes.send(receivers, signal.SIGSTOP)
    try:
        trio.wait(lambda: (status := trio.status()) and status["degraded"] and len(status["rules"]) == 1, 30, "degraded")
        trio.check_ledger(ledger)
        old.kill_postgres()
        assert trio.wait_new_epoch(epoch, 30) is old
        trio.check_ledger(ledger)
    finally:
        processes.send(receivers, signal.SIGCONT)
    trio.wait_redundant(60)
    trio.check_ledger(ledger)


def test_a_member_frozen_as_a_whole(trio, ledger):
    """Daemon, guard and PostgreSQL stop, as on a paused machine, and wake when another one is primary."""
    old, frozen = trio.primary(), processes.all_in(trio.primary().directory)
    processes.send(frozen, signal.SIGSTOP)
    try:
        new = trio.wait_new_primary(old, 25)
        trio.check_ledger(ledger)
        epoch = trio.epoch()
    finally:
        processes.send([pid for pid in frozen if processes.is_alive(pid)], signal.SIGCONT)
    thawed = time.monotonic()
    acknowledged = False
    while time.monotonic() < thawed + 1:
        try:
            old.query("SET statement_timeout = '500ms'; CREATE TABLE astray ()")
            acknowledged = True
        except psycopg2.Error:
            pass  # down, read-only, or without standbys
    assert not acknowledged, f"{old} acknowledged a commit beside {new}"
    trio.wait_redundant(60)
    assert (trio.primary(), trio.epoch()) == (new, epoch)
    trio.check_ledger(ledger)


def test_defaults_of_the_superuser_change_nothing(make_cluster):
    """What is set for the role that the daemons use is not what their sessions do: durable writes are durable."""
    cluster = make_cluster(2, witness=True).found()
    old = cluster.primary()
    old.query("; ".join(f"ALTER ROLE postgres SET {setting}" for setting in (
        "synchronous_commit = off", "default_transaction_read_only = on", "statement_timeout = 1", "lock_timeout = 1",
        "search_path = nowhere", "idle_session_timeout = 1")))
    old.kill_postgres()
    cluster.wait_new_primary(old)
    cluster.wait_redundant(60)


@pytest.mark.limit(120)
def test_slots_of_users(make_cluster):
    """Those that users have made are theirs. They are on the member where they were made, before and after a failover."""
    cluster = make_cluster(2, witness=True, postgresql={"parameters": {"wal_level": "logical"}}).found()
    old = cluster.primary()
    old.query("SELECT pg_create_physical_replication_slot('theirs', true)")
    old.query("SELECT pg_create_logical_replication_slot('theirs_logical', 'test_decoding')")
    theirs = "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'theirs%'"
    other = cluster.standbys()[0]
    other.kill_everything()
    ours = "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'ttorch%' AND NOT active"
    cluster.wait(lambda: old.query(ours) == 1, 20, "its slot is not in use")
    old.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'ttorch%'")
    cluster.wait(lambda: old.query(ours) == 1, 30, "the upkeep of the slots has come by")
    assert old.query(theirs) == "theirs theirs_logical"
    other.start()
    cluster.wait_redundant(60)
    old.kill_everything()
    assert cluster.wait_new_primary(old).query(theirs) is None, "PostgreSQL does not pass them on"
    old.start()
    cluster.wait_redundant(60)
    assert old.query(theirs) == "theirs theirs_logical"


@pytest.mark.limit(120)
def test_postgres_that_does_not_start(trio, ledger):
    """Another one takes over, the member says what is wrong, and follows once that is mended."""
    old = trio.primary()
    settings = old.pgdata / "postgresql.conf"
    sound = settings.read_text(encoding="utf-8")
    settings.write_text(sound + "\nno_such_setting = 1\n", encoding="utf-8")
    old.kill_postgres()
    trio.wait_new_primary(old, 25)
    trio.check_ledger(ledger)
    trio.wait(lambda: "start" in trio.row(old)["trouble"], 20, f"{old} says that PostgreSQL does not start")
    settings.write_text(sound, encoding="utf-8")
    trio.wait_redundant(60)
    trio.check_ledger(ledger)


@pytest.mark.limit(120)
def test_priority_0_is_never_promoted(make_cluster):
    """It votes, acknowledges, and stays a standby: at the founding, after a failover, and when asked."""
    cluster = make_cluster(3)
    cluster.options = {"members": {"m2": {"priority": 0}}}
    for member in cluster.members:
        member.write_config()
    cluster.found()
    ledger = cluster.ledger()
    done = cluster.primary().ttorch("switchover", "--to", "m2", check=False)
    assert done.returncode == 1 and "m2" in done.stderr
    old = cluster.primary()
    assert old is not cluster["m2"]
    old.kill_everything()
    assert cluster.wait_new_primary(old) is not cluster["m2"]
    cluster.check_ledger(ledger)


def acknowledges_nothing(cluster, ledger, since):
    """Whoever was asked before is long answered."""
    cluster.wait(lambda: time.monotonic() > since + 2, 10, "time for an acknowledgement")
    return not ledger.wrote_after(since + 1)


@pytest.mark.limit(240)
def test_strict_waits(make_cluster):
    """No commit is ever on one member alone: not when the standby goes, and not after a failover either."""
    cluster = make_cluster(2, witness=True, durability="strict").found()
    ledger, primary = cluster.ledger(), cluster.primary()
    standby = cluster.standbys()[0]

    standby.kill_everything()
    gone = time.monotonic()
    assert acknowledges_nothing(cluster, ledger, gone)
    assert not cluster.status()["degraded"]
    standby.start()
    cluster.wait_redundant(60)
    cluster.check_ledger(ledger)

    standby.kill_everything()
    shutil.rmtree(standby.pgdata)
    epoch = cluster.epoch()
    primary.kill_postgres()
    cluster.wait(lambda: cluster.epoch() > epoch, 30, "the primary is chosen again, with nobody to acknowledge")
    standby.start()  # has to be cloned from a primary that cannot open without it
    cluster.wait_redundant(60)
    cluster.check_ledger(ledger)

    primary.kill_everything()
    gone = time.monotonic()
    cluster.wait(lambda: (status := standby.status()) and status["primary"] == standby.name, 30, f"{standby} is assigned")
    assert acknowledges_nothing(cluster, ledger, gone)
    assert not standby.status()["open"]
    primary.start()
    cluster.wait_redundant(60)
    assert cluster.primary() is standby
    cluster.check_ledger(ledger)
