"""A member whose record is damaged or gone says so, acts on nothing, and comes back with one command."""
import os
import pathlib
import shutil
import struct

import pytest

from cluster import give


def raft(member):
    return member.directory / "ttorch" / "raft"


def state(member):
    return member.directory / "ttorch" / "postgresql"


def flip(path, at):
    """One bit, of a byte that is not zero, at or after `at`."""
    content = bytearray(path.read_bytes())
    while content[at] == 0:
        at += 1
    content[at] ^= 4
    path.write_bytes(content)


def cut(path, length):
    os.truncate(path, length)


def last_open_segment(member):
    """The one that has been written to last."""
    return max((path for path in (raft(member) / "log").glob("open-*") if any(path.read_bytes())))


def last_written(path):
    """Where the bytes end that are not zero."""
    return len(path.read_bytes().rstrip(b"\0"))


def flip_in_last_entry(member):
    segment = last_open_segment(member)
    flip(segment, last_written(segment) - 12)


def flip_in_first_entry(member):
    flip(last_open_segment(member), 40)


def cut_open_segment(member):
    cut(last_open_segment(member), 4096)


def remove_open_segments(member):
    for segment in (raft(member) / "log").glob("open-*"):
        segment.unlink()


def flip_metadata(member):
    """Term or vote in both of libraft's files, which have no checksum."""
    for number in (1, 2):
        flip(raft(member) / "log" / f"metadata{number}", 16)


# What is done to it, and what the member says then.
DAMAGES = {
    "log-first": (flip_in_first_entry, "damaged at byte"),
    "log-last": (flip_in_last_entry, "damaged at byte"),
    "log-cut": (cut_open_segment, "/raft/log/open-"),  # cut off there, or within an entry: damaged where that begins
    "log-end-missing": (remove_open_segments, "but had reached"),
    "metadata": (flip_metadata, "contradict each other"),
    "metadata-cut": (lambda member: [cut(raft(member) / "log" / f"metadata{i}", 7) for i in (1, 2)],
                     "contradict each other"),
    "identity": (lambda member: flip(raft(member) / "identity", 45), "/raft/identity "),
    "identity-cut": (lambda member: cut(raft(member) / "identity", 30), "/identity is malformed"),
    "identity-missing": (lambda member: (raft(member) / "identity").unlink(), "a log but no identity file"),
    "ballot": (lambda member: (raft(member) / "ballot").write_bytes(b"\7" * 1024), "/ballot is damaged"),
    "log-missing": (lambda member: shutil.rmtree(raft(member) / "log"), "is missing"),
    "all-missing": (lambda member: shutil.rmtree(raft(member)), "under another raft id"),
}


# The same for the files that say what the data directory is and what was promised. Whether PostgreSQL goes on.
FILE_DAMAGES = {
    "label": (lambda member: flip(state(member) / "label", 5), "/label has a wrong checksum", False),
    "label-empty": (lambda member: cut(state(member) / "label", 0), "/label has a wrong checksum", False),
    "pledge": (lambda member: flip(state(member) / "pledge", 6), "/pledge has a wrong checksum", True),
    "pledge-cut": (lambda member: cut(state(member) / "pledge", 8), "/pledge has a wrong checksum", True),
}


def says_lost(member, text, what):
    """Once it also knows what has happened meanwhile, as it has to before a file is replaced."""
    status = member.status()
    known = status and (status["fresh"] or what == "record_lost")
    return known and status[what] and text in status["waiting"] and status["waiting"]


def wait_lost(cluster, member, text, what="record_lost"):
    said = cluster.wait(lambda: says_lost(member, text, what), 20, f"{member} says: {text}")
    told = member.ttorch("status")  # by then another member may have refused it, in words of its own
    assert text in told and "ttorch rejoin" in said and "ttorch rejoin" in told, "people are told, too"


def raft_id(member):
    words = dict(line.split(" ", 1) for line in (raft(member) / "identity").read_text(encoding="utf-8").splitlines())
    return words["raft_id"]


def noted_log_end(member):
    """Up to where the log reaches, as the newer slot of the ballot says."""
    content = (raft(member) / "ballot").read_bytes().ljust(1024, b"\0")
    return max(struct.unpack_from("<6Q", content, slot) for slot in (0, 512))[5]


def damage_and_rejoin(cluster, ledger, member, damage, text):
    cluster.wait(lambda: noted_log_end(member) > 1, 20, f"{member} has noted how long its log is")
    member.kill_daemon(restart=False)
    damage(member)
    member.start()
    wait_lost(cluster, member, text)
    cluster.check_ledger(ledger)  # the others go on
    assert "is a voter again" in member.ttorch("rejoin", "--yes")
    cluster.wait_redundant(60)
    cluster.check_ledger(ledger)


@pytest.mark.parametrize("damage, text", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.limit(120)
def test_damaged_standby(trio, ledger, damage, text):
    """Its PostgreSQL, which is still good, goes on all the time."""
    member = trio.standbys()[0]
    before, postmaster = raft_id(member), member.postmaster()
    damage_and_rejoin(trio, ledger, member, damage, text)
    assert raft_id(member) != before, "nobody knows what the old one has promised"
    assert member.postmaster() == postmaster


def copy_number(member):
    return (state(member) / "label").read_text(encoding="utf-8").split()[1]


def make_pledge(cluster, member):
    """Whoever lives through a failover as a standby has pledged."""
    old = cluster.primary()
    old.kill_postgres()
    cluster.wait_new_primary(old)
    cluster.wait_redundant(60)
    assert (state(member) / "pledge").exists()


@pytest.mark.parametrize("damage, text, goes_on", FILE_DAMAGES.values(), ids=FILE_DAMAGES)
@pytest.mark.limit(120)
def test_damaged_file(trio, ledger, damage, text, goes_on):
    """What it may not be sure of it does not do: it counts for nothing new until an operator has said so."""
    member = trio.standbys()[0]
    make_pledge(trio, member)
    member = trio.standbys()[0]
    before, postmaster, copy = raft_id(member), member.postmaster(), copy_number(member)
    member.kill_daemon(restart=False)
    damage(member)
    member.start()
    wait_lost(trio, member, text, "file_damaged")
    trio.check_ledger(ledger)
    assert "has replaced the damaged file" in member.ttorch("rejoin", "--yes")
    trio.wait_redundant(60)
    trio.check_ledger(ledger)
    assert raft_id(member) == before, "its record is good"
    assert (member.postmaster() == postmaster) == goes_on
    assert (copy_number(member) == copy) == goes_on, "what it had said under the old number never counts again"


@pytest.mark.parametrize("file", ("label", "pledge"))
@pytest.mark.limit(120)
def test_damaged_file_of_the_primary(trio, ledger, file):
    """It goes on, as it runs. Once it has fallen it is not promoted before an operator says that it may."""
    old = trio.primary()
    make_pledge(trio, old)
    old = trio.primary()
    epoch = trio.epoch()
    old.kill_daemon(restart=False)
    flip(state(old) / file, 6)
    old.start()
    wait_lost(trio, old, f"/{file} has a wrong checksum", "file_damaged")
    trio.check_ledger(ledger)
    assert trio.epoch() == epoch and trio.primary() == old
    old.kill_postgres()
    trio.wait_new_primary(old)
    trio.check_ledger(ledger)
    assert old.ttorch("status").count("ttorch rejoin")
    old.ttorch("rejoin", "--yes")
    trio.wait_redundant(60)
    trio.check_ledger(ledger)


def test_damaged_label_of_the_primary(trio, ledger):
    """While it writes, there is no doubt which data directory it has: nothing has to be cloned."""
    primary, epoch = trio.primary(), trio.epoch()
    postmaster, copy = primary.postmaster(), copy_number(primary)
    primary.kill_daemon(restart=False)
    flip(state(primary) / "label", 5)
    primary.start()
    wait_lost(trio, primary, "/label has a wrong checksum", "file_damaged")
    primary.ttorch("rejoin", "--yes")
    trio.wait_redundant(60)
    trio.check_ledger(ledger)
    assert (trio.primary(), trio.epoch()) == (primary, epoch)
    assert (primary.postmaster(), copy_number(primary)) == (postmaster, copy)


@pytest.mark.limit(120)
def test_record_and_file_damaged(trio, ledger):
    """One command brings back both: first the record, which then tells what can have been pledged."""
    member = trio.standbys()[0]
    make_pledge(trio, member)
    member = trio.standbys()[0]
    member.kill_daemon(restart=False)
    shutil.rmtree(raft(member) / "log")
    flip(state(member) / "pledge", 6)
    flip(state(member) / "label", 5)
    member.start()
    wait_lost(trio, member, "is missing")
    member.ttorch("rejoin", "--yes")
    trio.wait_redundant(60)
    assert not member.status()["file_damaged"]
    trio.check_ledger(ledger)


@pytest.mark.limit(120)
def test_damaged_primary(trio, ledger):
    """Without a record it may not write: another member takes over, and the old one comes back as a standby."""
    old = trio.primary()
    old.kill_daemon(restart=False)
    flip_in_first_entry(old)
    old.start()
    trio.wait_new_primary(old)
    wait_lost(trio, old, "damaged at byte")
    old.ttorch("rejoin", "--yes")
    trio.wait_redundant(60)
    trio.check_ledger(ledger)


@pytest.mark.limit(120)
def test_lost_host(trio, ledger):
    """A new host with the old name and nothing on its disks: the record comes back by a command, the data by itself. And
    then it votes: with another member's daemon gone, what needs a majority still happens."""
    member, other = trio.standbys()
    member.kill_everything()
    for path in (member.directory / "ttorch", member.pgdata):
        shutil.rmtree(path)
    member.start()
    wait_lost(trio, member, "under another raft id")
    member.ttorch("rejoin", "--yes")
    trio.wait_redundant(60)
    trio.check_ledger(ledger)
    other.kill_daemon(restart=False)
    index = member.status()["index"]
    trio.wait(lambda: (status := member.status()) and status["fresh"] and status["index"] > index, 20,
              f"{member} and the primary record that {other} does not count any more")
    other.start()
    trio.wait_redundant(60)
    trio.check_ledger(ledger)


@pytest.mark.limit(120)
def test_two_of_three(make_cluster):
    """Two lost records are a majority's: nothing guesses, and the command says what it waits for. Good records are kept."""
    cluster = make_cluster(3).found()
    good, *lost = cluster.members
    for member in lost:
        member.kill_daemon(restart=False)
        shutil.rmtree(raft(member) / "log")
        member.start()
        wait_lost(cluster, member, "is missing")
    for member in lost:
        said = member.ttorch("rejoin", "--yes", "--timeout", "2", check=False)
        assert said.returncode == 1 and "waiting for a majority of the others" in said.stderr
    said = good.ttorch("rejoin", "--yes", check=False)
    assert said.returncode == 1 and "is not lost: nothing was done" in said.stderr
    assert not good.status()["record_lost"]
    assert pathlib.Path(raft(lost[0]) / "damaged" / "identity").exists(), "an expert may still find something there"


@pytest.mark.limit(90)
def test_old_directory(trio, ledger):
    """One from a backup has forgotten votes, too."""
    member = trio.standbys()[0]
    copy = member.directory / "backup"
    member.kill_daemon(restart=False)
    shutil.copytree(raft(member), copy)
    for path in (copy, *copy.rglob("*")):
        give(path)
    member.start()
    trio.wait_redundant()
    member.kill_daemon(restart=True)
    trio.wait_redundant()
    member.kill_daemon(restart=False)
    shutil.rmtree(raft(member))
    copy.rename(raft(member))
    member.start()
    wait_lost(trio, member, "older than")
    member.ttorch("rejoin", "--yes")
    trio.wait_redundant(60)
    trio.check_ledger(ledger)
