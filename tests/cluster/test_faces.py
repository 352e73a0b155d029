"""What people and programs see: status, history, DSN, topology file, HTTP."""
import json
import re

import psycopg2

import api


def test_topology_files_agree(trio):
    primary = trio.primary()

    def topologies():
        return [json.loads(member.topology_file.read_text(encoding="utf-8")) for member in trio.members]

    trio.wait(lambda: all(t["fresh"] and t["primary"] for t in topologies()), 10, "all topology files are fresh")
    for topology in topologies():
        assert topology["cluster"] == "test"
        assert topology["epoch"] == trio.epoch()
        assert topology["primary"]["member"] == primary.name
        assert topology["primary"]["port"] == primary.port
        assert {row["member"] for row in topology["standbys"]} == {member.name for member in trio.standbys()}


def test_topology_follows_the_primary(trio, ledger):
    old, epoch = trio.primary(), trio.epoch()
    old.kill_postgres()
    trio.wait_new_epoch(epoch)
    for member in trio.members:
        trio.wait(lambda m=member: (topology := json.loads(m.topology_file.read_text(encoding="utf-8")))["epoch"] > epoch
                  and topology["primary"] and topology["primary"]["member"] == trio.primary().name,
                  10, f"{member}'s topology file names the new primary")
    trio.wait_redundant()
    trio.check_ledger(ledger)


def test_without_quorum_old_news_are_not_repeated(make_cluster):
    cluster = make_cluster(3).found()
    last, *others = cluster.members
    for member in others:
        member.kill_everything()
    cluster.wait(lambda: (status := last.status()) and not status["fresh"], 15, f"{last} knows that it is alone")
    cluster.wait(lambda: not json.loads(last.topology_file.read_text(encoding="utf-8"))["fresh"], 5, "its file says so")
    assert api.get(last.socket, "/v1/topology")[0] == 503
    assert json.loads(last.topology_file.read_text(encoding="utf-8"))["primary"] is None


def test_status(trio):
    """The same from every member, for people and for programs."""
    for member in trio.members:
        rows = dict(re.findall(r"^\s*(m\d)\s+(primary|standby)\s", member.ttorch("status"), re.MULTILINE))
        assert rows == {m.name: "primary" if m is trio.primary() else "standby" for m in trio.members}
        status = json.loads(member.ttorch("status", "--json"))
        assert status["primary"] == trio.primary().name
        assert {row["name"]: row["duty"] for row in status["members"]} == rows


def test_history(trio):
    entries = json.loads(trio["m1"].ttorch("history", "--json"))["history"]
    assert [entry["index"] for entry in entries] == sorted(entry["index"] for entry in entries)
    epochs = [entry["epoch"] for entry in entries if entry["kind"] == "opened"]
    assert epochs == sorted(set(epochs)), "each epoch is opened once"
    assert epochs[-1] == trio.epoch()
    assert re.search(rf"\b{trio.epoch()}\s+opened\s+{trio.primary()}\b", trio["m2"].ttorch("history"))


def test_trace(trio, ledger):
    """Of the newest failover: every step with its time, in order, beginning with why it began."""
    epoch = trio.epoch()
    trio.primary().kill_postgres()
    trio.wait_new_epoch(epoch)
    trio.wait_redundant()
    for member in trio.members:
        head, _, *rows = member.ttorch("history", "--last", "--trace").splitlines()
        assert re.fullmatch(rf"epoch {trio.epoch()} of {trio.primary()} was opened at [-0-9]+ [:.0-9]+", head)
        steps = [re.match(r"([:.0-9]+) +(\d+) ms +\+(\d+)  (\w+)", row).groups() for row in rows]
        names, after = [name for *_, name in steps], [int(ms) for _, ms, _, _ in steps]
        assert names[:2] == ["suspected", "sealed"] and names[-1] == "acknowledged" and "assigned" in names
        assert after == sorted(after) and after[-1] == sum(int(took) for _, _, took, _ in steps)
        assert f"epoch {epoch} ends:" in rows[0]
    kinds = [entry["kind"] for entry in json.loads(trio["m1"].ttorch("history", "--last", "--json"))["history"]]
    assert (kinds[0], kinds[-1], kinds.count("opened")) == ("sealed", "opened", 1)
    trio.check_ledger(ledger)


def test_dsn(trio):
    """What it prints leads a client to the primary, or to a standby for reading."""
    for options, port in (((), trio.primary().port), (("--read",), None)):
        dsn = trio["m1"].ttorch("dsn", "--database", "postgres", "--user", "postgres", *options).strip()
        connection = psycopg2.connect(dsn)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery(), inet_server_port()")
            reading, where = cursor.fetchone()
        connection.close()
        assert (where == port and not reading) if port else reading


def test_unknown_resource(trio):
    assert api.get(trio["m1"].socket, "/v1/nothing")[0] == 404


def test_a_daemon_that_does_not_answer(make_cluster):
    """The tool says where it looked."""
    cluster = make_cluster(1)
    done = cluster["m1"].ttorch("status", check=False)
    assert done.returncode == 1 and str(cluster["m1"].socket) in done.stderr
