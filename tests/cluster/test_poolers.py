"""PgBouncers that ttorch drives, HAProxy that asks it: both from configurations as printed, through changes of primary."""
import re
import signal
import subprocess
import threading

import psycopg2
import pytest
import yaml

import processes
from cluster import PASSWORD, SOURCE, give, postgres_programs
from poolers import USERS, Bench, HAProxy, PooledCluster, Question
from test_config import check


def begin(cluster):
    cluster.found()
    cluster.start_poolers()
    cluster.haproxy = HAProxy(cluster.members[0]).start()


@pytest.fixture
def pooled(of_file, limit):
    """One cluster with a PgBouncer a member, and HAProxy. Each test leaves it whole."""
    cluster = of_file(PooledCluster, begin)
    cluster.wait_redundant(60)
    cluster.wait_drives()
    return cluster


@pytest.mark.limit(120)
def test_switchover_there_and_back_without_an_error(pooled):
    """pgbench notices nothing, whichever member's PgBouncer it uses; HAProxy follows."""
    old, target = pooled.primary(), pooled.standbys()[0]
    bouncers = [pooled.poolers[old.name], pooled.poolers[target.name]]
    Bench.make_tables(bouncers[0])
    benches = [Bench(bouncer) for bouncer in bouncers]
    try:
        for to in target, old:
            pooled.switch_over(to)
            pooled.wait_drives()
            for bench in benches:
                bench.wait_progress()
                bench.check()
            pooled.wait(pooled.haproxy.leads_right, 20, "HAProxy leads to the new primary, and to a standby")
            pooled.wait_redundant()
        for bench in benches:
            bench.check()
    finally:
        for bench in benches:
            bench.stop()
    for name in pooled.poolers:
        assert f"pgbouncer {name}: clients wait" in old.log() and f"pgbouncer {name}: clients go on" in old.log()


@pytest.mark.limit(120)
def test_a_member_that_is_stopped_hands_over_without_an_error(pooled):
    """As when its host is rebooted: it goes while clients wait, and others let them go on."""
    old, standby = pooled.primary(), pooled.standbys()[0]
    Bench.make_tables(pooled.poolers[standby.name])
    bench = Bench(pooled.poolers[standby.name])
    try:
        old.signal(signal.SIGTERM)
        assert old.wait_exit() == 0
        pooled.wait_new_primary(old)
        bench.wait_progress()
        bench.check()
    finally:
        bench.stop()
    assert "clients wait" in old.log()
    old.start()


@pytest.mark.limit(120)
def test_the_pausing_daemon_is_killed(pooled):
    """While it waits for a transaction to end: the others lead its clients to the next primary, and let them go on."""
    old, (target, other) = pooled.primary(), pooled.standbys()
    bouncer = pooled.poolers[other.name]
    with bouncer.session() as cursor:
        cursor.execute("SELECT 1")  # a transaction that does not end
        threading.Thread(target=old.ttorch, args=("switchover", "--to", target.name, "--yes"), kwargs={"check": False},
                         daemon=True).start()
        pooled.wait(bouncer.is_paused, 20, "the pooler holds its clients back")
        held = Question(bouncer, "SELECT inet_server_port()")
        old.kill_daemon(restart=False)
    new = pooled.wait(lambda: (now := pooled.primary()) is not old and now, 30, "the next primary")
    pooled.wait(lambda: not bouncer.is_paused() and bouncer.leads_to(new), 20, "clients go on")
    assert held.result() == new.port
    old.start()
    pooled.wait_redundant(60)


@pytest.mark.limit(90)
def test_what_was_left_paused_goes_on_when_a_daemon_starts(pooled):
    """Nothing in the record says that there was a pause."""
    bouncer, member = pooled.poolers["m1"], pooled.standbys()[0]
    member.kill_daemon(restart=False)
    bouncer.ask('PAUSE "postgres"')
    held = Question(bouncer, "SELECT 5")
    member.start()
    assert held.result() == 5


@pytest.mark.limit(120)
def test_poolers_that_cannot_be_asked(pooled):
    """One that is not there, one that refuses the password: both are told, and the switchover happens anyway. In the third
    one a transaction does not end: it is broken off. Then that one is frozen, and hears later of what has happened."""
    old, target = pooled.primary(), pooled.standbys()[0]
    absent, refusing, third = pooled.poolers["m1"], pooled.poolers["m2"], pooled.poolers["m3"]
    absent.stop()
    refusing.restart(USERS.replace(PASSWORD, "another one"))
    for name, words in ("m1", "Connection refused"), ("m2", "authentication failed"):
        pooled.wait(lambda pooler=name, said=words: said in (pooled.pooler_row(old, pooler)["error"] or ""), 30, words)
        assert words in old.ttorch("status") and f"pgbouncer {name}: " in old.log()
    with third.session() as cursor:
        cursor.execute("SELECT 1")
        pooled.switch_over(target)
        assert "pgbouncer m3: transactions of postgres did not end within" in old.log()
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")
    pooled.wait_drives("m3")
    pooled.wait_redundant()
    third.process.send_signal(signal.SIGSTOP)
    try:
        pooled.switch_over(old)
    finally:
        third.process.send_signal(signal.SIGCONT)
    pooled.wait_drives("m3")
    absent.start()
    refusing.restart(USERS)


@pytest.mark.limit(120)
def test_failover_and_sessions_that_hang(pooled):
    """The primary's host goes silent, and no socket says so."""
    old, standby = pooled.primary(), pooled.standbys()[0]
    bouncer = pooled.poolers[standby.name]
    hanging = Question(bouncer, "SELECT pg_sleep(300)")
    pooled.wait(lambda: any(row["state"] == "active" for row in bouncer.ask("SHOW SERVERS")), 20, "a session is busy")
    processes.send(processes.all_in(old.directory), signal.SIGSTOP)
    new = pooled.wait(lambda: (now := pooled.primary()) is not old and now, 30, "the next primary")
    pooled.wait(lambda: bouncer.leads_to(new) and not bouncer.is_paused(), 20, "it leads to the next primary")
    assert "closed the connection" in hanging.result()
    assert Question(bouncer, "SELECT inet_server_port()").result() == new.port
    pooled.wait(pooled.haproxy.leads_right, 30, "HAProxy leads to the new primary, and to a standby")
    old.kill_everything()
    old.start()
    pooled.wait_redundant(60)


MANUAL = (SOURCE / "docs/POOLERS.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", MANUAL, re.MULTILINE | re.DOTALL)


@pytest.mark.limit(120)
def test_the_manual(pooled):
    """Its settings are right, its commands work, and PgBouncer runs with what the first of them prints."""
    member, port, here = pooled["m1"], pooled.pooler_ports["m1"], pooled.directory / "here"
    for name in ("etc/pgbouncer", "etc/haproxy", "etc/ttorch", "var/run/postgresql", "var/log/postgresql", "run/ttorch"):
        (here / name).mkdir(parents=True)

    def as_here(text):
        """Its paths and ports on this machine."""
        text = re.sub(r"(?<=[ =>])/(etc|var|run)/", rf"{here}/\1/", text).replace("6432", str(port))
        return re.sub(r"^ttorch ", f"{pooled.program('ttorch')} --config {member.config} ", text, flags=re.MULTILINE)

    settings, = blocks("yaml")
    example = yaml.safe_load((SOURCE / "docs/examples/three.yaml").read_text(encoding="utf-8"))
    example["postgresql"]["bin_directory"] = str(postgres_programs())
    example["replication"]["password_file"] = str(pooled.directory / "password")
    example |= yaml.safe_load(as_here(settings))
    example["pgbouncer"]["password_file"] = str(pooled.directory / "password")
    file = pooled.directory / "example.yaml"
    file.write_text(yaml.safe_dump(example), encoding="utf-8")
    file.chmod(0o644)
    done = check(pooled, file)
    assert done.returncode == 0, done.stdout + done.stderr

    printed, looked, proxy = [as_here(block) for block in blocks("sh")]

    def run(commands):
        done = subprocess.run(["bash", "-euc", commands], capture_output=True, text=True, timeout=60, check=False,
                              env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PGPASSWORD": PASSWORD})
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        return done.stdout

    run(printed)
    config = here / "etc/pgbouncer/pgbouncer.ini"
    config.write_text(as_here(config.read_text(encoding="utf-8")), encoding="utf-8")
    (here / "etc/pgbouncer/userlist.txt").write_text(USERS, encoding="utf-8")
    for path in here.rglob("*"):
        give(path)
    bouncer = pooled.poolers["m1"]
    bouncer.stop()
    bouncer.config = config
    bouncer.start()
    pooled.wait_drives()
    assert pooled.primary().address in run(looked)
    run(proxy)
