"""Members without a vote: they read and publish, and no commit, majority or choice depends on them."""
import json
import signal

import pytest

pytestmark = pytest.mark.limit(240)


def published(member):
    """What the file says that programs read, None before there is one."""
    try:
        return json.loads(member.topology_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def names(member):
    topology = published(member)
    return topology and topology["fresh"] and topology["primary"] and topology["primary"]["member"]


def streaming(member):
    """The standbys to which this member points readers."""
    topology = published(member) or {"standbys": []}
    return {row["member"] for row in topology["standbys"] if row["state"] == "streaming"}


@pytest.fixture
def five(make_cluster):
    """Three voters, m4 which is a standby without a vote, m5 which only publishes."""
    return make_cluster(3, readers=1, observers=1).found()


def check_rules(cluster):
    for text in cluster.status()["rules"]:
        assert "m4" not in text and "m5" not in text, text


def wait_published(cluster, observers):
    def agreed():
        primary = cluster.primary()
        return primary and all(names(member) == primary.name for member in observers)
    cluster.wait(agreed, 30, "the observers publish the primary")


def test_observers(five):
    """Both publish the primary; the one with data follows through a failover; neither ever stands in a rule; each may be
    killed and started again."""
    m4, m5 = five["m4"], five["m5"]
    wait_published(five, [m4, m5])
    check_rules(five)
    row = five.row(m4)
    assert (row["duty"], row["state"], row["sync"], row["raft"]) == ("observer", "streaming", "async", "-")
    assert five.row(m5)["duty"] == "observer" and five.row(m5)["state"] == "running"
    five.wait(lambda: "m4" in streaming(m5), 20, "an observer points readers to the other, which it does not hear")
    assert "m4" in m5.ttorch("status")

    done = five["m1"].ttorch("switchover", "--to", "m4", "--yes", check=False)
    assert done.returncode != 0 and "m4 is an observer" in done.stdout + done.stderr

    ledger = five.ledger()
    old = five.primary()
    old.kill_everything()
    five.wait_new_primary(old)
    wait_published(five, [m4, m5])
    check_rules(five)
    five.check_ledger(ledger)
    five.wait(lambda: five.row(m4)["state"] == "streaming" and five.row(m4)["upstream"] == five.primary().name, 30,
              "the observer follows the new primary")
    old.start()
    five.wait_redundant(60)
    check_rules(five)

    rows = len(ledger.acknowledged)
    m4.kill_everything()
    m5.kill_daemon(restart=False)
    five.wait(lambda: len(ledger.acknowledged) > rows + 50, 20, "commits do not wait for observers")
    m4.start()
    m5.start()
    five.wait_redundant(60)
    wait_published(five, [m4, m5])
    five.wait(lambda: m4.query("SELECT count(*) FROM ledger") >= rows, 20, "the observer has replayed what it missed")
    check_rules(five)
    five.check_ledger(ledger)


def test_every_voter_is_frozen_once(five):
    """Whichever voter an observer takes the record from, another one takes its place."""
    observers = [five["m4"], five["m5"]]
    for voter in five.voters:
        epoch, was_primary = five.epoch(), five.primary() is voter
        voter.signal(signal.SIGSTOP)
        if was_primary:
            five.wait(lambda before=epoch: all((o.status() or {"epoch": 0})["epoch"] > before and names(o)
                                               for o in observers), 30, "the observers see the next epoch")
        five.wait(lambda: all(o.status()["fresh"] for o in observers), 20, "the observers are fresh")
        voter.signal(signal.SIGCONT)
        five.wait_redundant(60)


def test_without_a_quorum(five):
    """Two voters gone: an observer names no primary any more; one back: it does."""
    m5, primary = five["m5"], five.primary()
    wait_published(five, [m5])
    others = [member for member in five.voters if member is not primary]
    for member in others:
        member.kill_everything()
    five.wait(lambda: m5.status() and not m5.status()["fresh"] and not names(m5), 20, "the observer is not fresh")
    others[0].start()
    wait_published(five, [m5])


def test_lost_directory_and_differing_file(make_cluster):
    """An observer needs nothing that it had; but its file has to agree."""
    cluster = make_cluster(3, observers=1)
    m4 = cluster["m4"]
    for member in cluster.voters:
        member.start()
    cluster.wait(cluster.primary, 60, "the voters found without it")
    m4.write_config(lease="3s")
    m4.start()
    cluster.wait(lambda: (m4.status() or {}).get("waiting", "").find("lease is 2s at m") >= 0, 20, "it is told the line")
    assert "m4.yaml" in m4.status()["waiting"]
    m4.stop()
    m4.write_config()
    m4.start()
    wait_published(cluster, [m4])
    raft = m4.directory / "ttorch" / "raft" / "identity"
    before = raft.read_text(encoding="utf-8")
    m4.kill_daemon(restart=False)
    raft.unlink()
    m4.start()
    cluster.wait(lambda: "m4 comes back" in json.dumps(m4.get("/v1/history")), 20, "it is let in anew")
    assert raft.read_text(encoding="utf-8") != before
    wait_published(cluster, [m4])
