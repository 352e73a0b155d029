"""A standby that cannot go on as it is becomes one again, unattended."""
import shutil
import signal
import threading
import time

import pytest

import byhand
import processes
from cluster import give


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


def test_data_directory_of_another_system(trio, ledger):
    """It is neither started nor thrown away: who put it there has to say what is to become of it."""
    primary, standby = trio.primary(), trio.standbys()[0]
    standby.kill_everything()
    shutil.rmtree(standby.pgdata)
    byhand.initdb(standby)
    stranger = (standby.pgdata / "global" / "pg_control").read_bytes()
    standby.start()
    trio.wait(lambda: "another system" in trio.row(standby)["trouble"], 30, f"{standby} says that it is a stranger's")
    trio.check_ledger(ledger)
    assert trio.primary() is primary
    assert (standby.pgdata / "global" / "pg_control").read_bytes() == stranger
    standby.pgdata.rename(standby.directory / "away")
    trio.wait_redundant(60)
    trio.check_ledger(ledger)


def test_damaged_control_file(trio, ledger):
    """PostgreSQL refuses to start, which the member tells; and is cloned once the damaged directory is gone."""
    standby = trio.standbys()[0]
    standby.kill_everything()
    path = standby.pgdata / "global" / "pg_control"
    content = bytearray(path.read_bytes())
    content[120] ^= 1
    path.write_bytes(content)
    standby.start()
    trio.wait(lambda: "control file" in trio.row(standby)["trouble"], 30, f"{standby} says what PostgreSQL says")
    trio.check_ledger(ledger)
    shutil.rmtree(standby.pgdata)
    trio.wait_redundant(60)
    trio.check_ledger(ledger)


def diverge(primary, table):
    """The primary writes what nobody else receives, and dies."""
    connection = primary.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = local")
        cursor.execute("SELECT pid FROM pg_stat_replication")
        # Stopped senders: what is written from now on leaves this host in no socket's buffer.
        processes.send([pid for pid, in cursor.fetchall()], signal.SIGSTOP)
        cursor.execute(table)
    connection.close()
    primary.kill_everything()


def test_diverged_primary_is_rewound(trio, ledger):
    """WAL that nobody else has received does not survive its primary, and does not keep it from coming back."""
    old, epoch = trio.primary(), trio.epoch()
    diverge(old, "CREATE TABLE diverged AS SELECT generate_series(1, 1000)")
    trio.wait_new_primary(old)
    old.start()
    trio.wait_redundant(60)
    assert trio.epoch() > epoch
    trio.check_ledger(ledger)
    for member in trio.data_members:
        assert member.query("SELECT to_regclass('diverged')") is None


def segments(member, lsn):
    """WAL files that it has up to there, on whichever timeline."""
    return member.query("SELECT count(*) FROM pg_ls_waldir() WHERE length(name) = 24 AND "
                        "substr(name, 9) <= substr(pg_walfile_name(%s), 9)", lsn)


def checkpoint_across_segments(member):
    """Its record is in a later WAL file than the point where recovery from it begins, as on any busy primary."""
    backup = member.connect()
    member.query("CREATE TABLE dirty AS SELECT generate_series(1, 100000)")
    waiting = threading.Thread(target=lambda: backup.cursor().execute("SELECT pg_backup_start('spread', false)"))
    before = member.query("SELECT redo_lsn FROM pg_control_checkpoint()")
    waiting.start()
    deadline = time.monotonic() + 10
    while not member.query("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'CheckpointWriteDelay')"):
        assert time.monotonic() < deadline, "no checkpoint has begun"
    for _ in range(3):
        member.query("SELECT pg_logical_emit_message(true, 'fill', 'x'), pg_switch_wal()")
    member.query("ALTER SYSTEM SET checkpoint_completion_target = 0")
    member.query("SELECT pg_reload_conf()")
    waiting.join()
    backup.close()
    redo = member.query("SELECT redo_lsn FROM pg_control_checkpoint()")
    assert redo != before and member.query("SELECT checkpoint_lsn - redo_lsn > 2 * 16777216 FROM pg_control_checkpoint()")
    return redo


@pytest.mark.limit(120)
def test_wal_for_a_rewind_is_gone(make_cluster):
    """From where the histories part it is all there, but not from where recovery begins, before the last checkpoint that
    both have: such a server would wait for ever. It is cloned."""
    cluster = make_cluster(3, postgresql={"parameters": {"max_wal_size": "1GB", "min_wal_size": "32MB",
                                                         "wal_keep_size": "0"}}).found()
    old = cluster.wait(cluster.primary, 10, "a primary")
    cluster.wait_redundant()
    redo = checkpoint_across_segments(old)
    diverge(old, "CREATE TABLE diverged AS SELECT generate_series(1, 1000)")
    new = cluster.wait_new_primary(old)

    def is_gone():
        new.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
        new.query("CHECKPOINT")
        return segments(new, redo) == 0

    cluster.wait(is_gone, 20, "the new primary has forgotten it")
    old.start()
    cluster.wait_redundant(60)
    assert old.query("SELECT to_regclass('diverged')") is None
    assert f"{old} was cloned: " in new.ttorch("history")


def tablespace(member):
    return member.query("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'")


def counts(cluster):
    return {member.name: member.query("SELECT count(*) FROM held") for member in cluster.data_members}


@pytest.mark.limit(180)
def test_tablespaces(make_cluster):
    """They go through clones, failovers and rewinds. Here all members have them in one place, which no other cluster
    does: each has a directory of its own below it, and what a clone leaves behind goes."""
    cluster = make_cluster(3)
    first, place = cluster["m1"], cluster.directory / "fast"
    place.mkdir(mode=0o700)
    give(place)
    byhand.make(first, f"CREATE TABLESPACE fast LOCATION '{place}'",
                "CREATE TABLE held TABLESPACE fast AS SELECT generate_series(1, 1000) AS number")
    cluster.found()
    assert set(counts(cluster).values()) == {1000}
    assert tablespace(cluster["m2"]) == f"{place}/ttorch-m2-1"

    first.kill_everything()
    cluster.wait_new_primary(first).query("INSERT INTO held SELECT generate_series(1001, 2000)")
    shutil.rmtree(first.pgdata)
    for left in place.glob("PG_*"):  # nothing tells any more whose that is
        shutil.rmtree(left)
    first.start()
    cluster.wait_redundant(60)
    assert set(counts(cluster).values()) == {2000}
    assert tablespace(first).startswith(f"{place}/ttorch-m1-")

    old = cluster.primary()
    before = tablespace(old)
    diverge(old, "CREATE TABLE diverged TABLESPACE fast AS SELECT generate_series(1, 1000)")
    cluster.wait_new_primary(old).query("INSERT INTO held SELECT generate_series(2001, 3000)")
    old.start()
    cluster.wait_redundant(60)
    assert f"{old} was rewound" in cluster.primary().ttorch("history")
    assert tablespace(old) == before
    assert set(counts(cluster).values()) == {3000}

    standby = cluster.standbys()[0]
    before = tablespace(standby)
    standby.kill_everything()
    (standby.directory / "ttorch" / "postgresql" / "label").write_text("copy 1\n", encoding="utf-8")
    standby.start()
    cluster.wait(lambda: (status := standby.status()) and status["file_damaged"], 20, f"{standby} says that it is damaged")
    standby.ttorch("rejoin", "--yes")
    cluster.wait_redundant(60)
    assert tablespace(standby) != before
    cluster.wait(lambda: len(list(place.iterdir())) == 3, 20, "what was replaced is gone")
    assert set(counts(cluster).values()) == {3000}
