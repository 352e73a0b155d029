"""A standby that cannot go on as it is becomes one again, unattended."""
import shutil
import signal

import pytest

import processes


@pytest.mark.limit(120)
def test_slot_and_wal_are_gone(make_cluster):
    """What the standby still needs is nowhere: it is cloned."""
    cluster = make_cluster(3, postgresql={"parameters": {"min_wal_size": "32MB", "max_wal_size": "48MB",
                                                         "wal_keep_size": "0"}}).found()
    primary, standby = cluster.primary(), cluster.standbys()[0]
    slots = "FROM pg_replication_slots WHERE slot_name LIKE %s"
    needed = primary.query("SELECT pg_walfile_name(pg_current_wal_lsn())")
    standby.kill_everything()
    cluster.wait(lambda: not primary.query(f"SELECT bool_or(active) {slots}", f"%{standby}%"), 10,
                 "its slot is not in use")

    def is_gone():
        primary.query(f"SELECT pg_drop_replication_slot(slot_name) {slots} AND NOT active", f"%{standby}%")
        primary.query("SELECT pg_logical_emit_message(true, 'fill', repeat('x', 1000000))")
        primary.query("SELECT pg_switch_wal()")
        primary.query("CHECKPOINT")
        return not primary.query("SELECT count(*) FROM pg_ls_waldir() WHERE name = %s", needed)

    cluster.wait(is_gone, 20, f"{needed} is gone")
    primary.query("CREATE TABLE after AS SELECT generate_series(1, 1000)")
    standby.start()
    cluster.wait_redundant(60)
    assert standby.query("SELECT count(*) FROM after") == 1000


def test_data_directory_wiped(trio, ledger):
    """An empty data directory is cloned, and never becomes primary by itself."""
    primary, standby = trio.primary(), trio.standbys()[0]
    standby.kill_everything()
    shutil.rmtree(standby.pgdata)
    standby.start()
    trio.wait_redundant(60)
    assert trio.primary() is primary
    trio.check_ledger(ledger)
    assert standby.query("SELECT count(*) FROM ledger") > 0


def test_primary_data_directory_wiped(trio, ledger):
    """The others have everything that was acknowledged."""
    old = trio.primary()
    old.kill_everything()
    shutil.rmtree(old.pgdata)
    old.start()
    trio.wait_new_primary(old)
    trio.wait_redundant(60)
    trio.check_ledger(ledger)


def test_diverged_primary_is_rewound(trio, ledger):
    """WAL that nobody else has received does not survive its primary, and does not keep it from coming back."""
    old, epoch = trio.primary(), trio.epoch()
    connection = old.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = local")
        cursor.execute("SELECT pid FROM pg_stat_replication")
        # Stopped senders: what is written from now on leaves this host in no socket's buffer.
        processes.send([pid for pid, in cursor.fetchall()], signal.SIGSTOP)
        cursor.execute("CREATE TABLE diverged AS SELECT generate_series(1, 1000)")
    connection.close()
    old.kill_everything()
    trio.wait_new_primary(old)
    old.start()
    trio.wait_redundant(60)
    assert trio.epoch() > epoch
    trio.check_ledger(ledger)
    for member in trio.data_members:
        assert member.query("SELECT to_regclass('diverged')") is None
