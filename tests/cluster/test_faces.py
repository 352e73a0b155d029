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
        text = member.ttorch("status")
        for other in trio.members:
            row = next(line for line in text.splitlines() if re.search(rf"\b{other}\b.*\b(primary|standby)\b", line))
            assert ("primary" in row) == (other is trio.primary())
        status = json.loads(member.ttorch("status", "--json"))
        assert status["primary"] == trio.primary().name
        assert {row["name"]: row["duty"] for row in status["members"]} == {
            m.name: "primary" if m is trio.primary() else "standby" for m in trio.members}


def test_history(trio):
    text = trio["m1"].ttorch("history")
    for kind in ("founded", "assigned", "opened"):
        assert kind in text
    entries = trio["m1"].get("/v1/history")["history"]
    assert [entry["index"] for entry in entries] == sorted(entry["index"] for entry in entries)
    epochs = [entry["epoch"] for entry in entries if entry["kind"] == "opened"]
    assert epochs == sorted(set(epochs)), "each epoch is opened once"


def test_dsn(trio):
    """What it prints leads a client to the primary."""
    dsn = trio["m1"].ttorch("dsn").strip()
    connection = psycopg2.connect(dsn, user="postgres", dbname="postgres", connect_timeout=5)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery(), inet_server_port()")
        assert cursor.fetchone() == (False, trio.primary().port)
    connection.close()


def test_unknown_resource(trio):
    assert api.get(trio["m1"].socket, "/v1/nothing")[0] == 404


def test_a_daemon_that_does_not_answer(make_cluster):
    """The tool says where it looked."""
    cluster = make_cluster(1)
    done = cluster["m1"].ttorch("status", check=False)
    assert done.returncode == 1 and str(cluster["m1"].socket) in done.stderr
