"""DNS: ttorchd's own answers, and what it writes to name servers."""
import json
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

import nameserver
from cluster import SOURCE, Cluster, free_ports, give
from nameserver import ask_srv, dig, rcode, short

ZONE = "db.example.org"
DOCS = (SOURCE / "docs" / "DNS.md").read_text(encoding="utf-8")


def give_ports(cluster, **dns):
    """Every member answers on a port of its own."""
    for member, port in zip(cluster.members, free_ports(len(cluster.members))):
        member.dns_port = port
        member.write_config(dns={"zone": ZONE, "listen": ["127.0.0.1", "::1"], "port": port, **dns})
    return cluster


@pytest.fixture
def served(of_file, limit):
    """Three members that answer for the zone, shared by the tests of this file."""
    cluster = of_file(lambda: give_ports(Cluster(3)), Cluster.found)
    cluster.wait_redundant(60)
    return cluster


def await_answer(served, expected, ask, *words):
    """On a machine that is busy a member may for a moment be in touch with nobody; then it says SERVFAIL."""
    served.wait(lambda: ask(*words) == expected, 5, f"{expected} is the answer to {words}")


def srv_of(members):
    return sorted(f"{priority} 1 {member.port} {member.name}.{ZONE}." for priority, member in members)


def test_every_name(served):
    """The same from every member, over UDP and TCP, IPv4 and IPv6."""
    primary, standbys = served.primary(), served.standbys()
    for member in served.members:
        port = member.dns_port
        served.wait(lambda p=port: len(short(p, f"_postgresql._tcp.standbys.{ZONE}", "SRV")) == 2, 5, "both are streaming")
        every = [(0, primary), *((10, standby) for standby in standbys)]
        for expected, *words in (
                (srv_of(every), f"_postgresql._tcp.{ZONE}", "SRV"),
                (srv_of(every[:1]), f"_postgresql._tcp.primary.{ZONE}", "SRV"),
                (srv_of(every[1:]), f"_postgresql._tcp.standbys.{ZONE}", "SRV", "+tcp"),
                (["127.0.0.1"], f"primary.{ZONE}"),
                (["127.0.0.1"], f"{primary.name}.{ZONE}"),
                ([f"m{i}.{ZONE}." for i in (1, 2, 3)], ZONE, "NS")):
            await_answer(served, expected, short, port, *words)
        for count, *words in (2, f"standbys.{ZONE}"), (3, f"any.{ZONE}", "+tcp"):
            served.wait(lambda p=port, w=words, c=count: short(p, *w, server="::1") == ["127.0.0.1"] * c, 5, f"{count} {words}")
        served.wait(lambda m=member: short(m.dns_port, ZONE, "SOA") == [
            f"m1.{ZONE}. hostmaster.{ZONE}. {m.get('/v1/topology')['index']} 60 10 600 1"], 5, "the serial is the index")
        served.wait(lambda p=port: "flags: qr aa rd;" in dig(p, f"primary.{ZONE}"), 5, "it has authority")


@pytest.mark.parametrize("words, code", [
    ((f"nobody.{ZONE}",), "NXDOMAIN"), ((f"primary.{ZONE}", "TXT"), "NOERROR"), (("example.org",), "REFUSED"),
    ((ZONE, "AXFR"), "REFUSED"), ((f"primary.{ZONE}", "+edns=1", "+noednsneg"), "BADVERS"),
    ((f"primary.{ZONE}", "+opcode=NOTIFY"), "NOTIMP"), ((f"primary.{ZONE}", "-c", "CH"), "REFUSED"),
])
def test_codes(served, words, code):
    port = served.members[0].dns_port
    if "AXFR" in words:
        assert "Transfer failed" in dig(port, *words)
    else:
        await_answer(served, code, rcode, port, *words)


def test_manual(served):
    """What the manual tells to ask is answered, and its names are all there are."""
    commands = re.findall(r"^dig \+short @10\.0\.0\.1 (.*)$", DOCS, re.MULTILINE)
    names = re.findall(r"^\| `(\S+)` \|", DOCS, re.MULTILINE)
    assert len(commands) == 2 and len([name for name in names if name.endswith(ZONE)]) == 6
    for words in [command.split() for command in commands] + [[name, "ANY"] for name in names if name.endswith(ZONE)]:
        served.wait(lambda w=words: short(served.members[0].dns_port, *w), 5, f"an answer to {words}")


def test_rubbish_is_dropped(served):
    """No answer to what is no query; a client over TCP that sends it is closed; the others are served."""
    port = served.members[0].dns_port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        for rubbish in (b"", b"x", b"\xff" * 40, b"\0" * 4000, nameserver.query("a", 1)[:-3]):
            client.sendto(rubbish, ("127.0.0.1", port))
        with pytest.raises(TimeoutError):
            while client.recv(4096)[3] & 15 == 1:  # FORMERR, to zeros: no question at all
                pass
    clients = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(100)]  # more than it keeps
    clients[-1].sendall(struct.pack(">H", 30) + b"\xff" * 30)
    assert clients[-1].recv(10) == b""
    assert clients[0].recv(10) == b""  # silent for longest
    asked = nameserver.query(f"primary.{ZONE}", 1)
    clients[-2].sendall((struct.pack(">H", len(asked)) + asked) * 3)  # three at once are three answers
    answers = b""
    while len(answers) < 3 * (2 + len(asked) + 16):
        assert (more := clients[-2].recv(4096)), "closed"
        answers += more
    for client in clients:
        client.close()
    await_answer(served, ["127.0.0.1"], short, port, f"primary.{ZONE}", "+tcp")


def opened_ms(cluster, epoch):
    history = json.loads(cluster.members[0].ttorch("history", "--json"))["history"]
    return next(entry["time_ms"] for entry in history if entry["kind"] == "opened" and entry["epoch"] > epoch)


class Watch:
    """Notes when each member's answer first names a primary on another port than before."""

    def __init__(self, cluster):
        self.old = cluster.primary().port
        self.seen = {}
        self.threads = [threading.Thread(target=self.run, args=(member,)) for member in cluster.members]
        for thread in self.threads:
            thread.start()

    def run(self, member):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and member.name not in self.seen:
            code, port = ask_srv(member.dns_port, f"_postgresql._tcp.primary.{ZONE}") or (None, None)
            if code == "NOERROR" and port not in (None, self.old):
                self.seen[member.name] = (time.time() * 1000, port)
            time.sleep(0.002)

    def result(self):
        for thread in self.threads:
            thread.join()
        return self.seen


def test_failover_and_forwarder(served):
    """Every member, and a resolver in between, names the new primary, and none before it was open."""
    forwarder = nameserver.Forwarder(served, [member.dns_port for member in served.members])
    forwarder.start(f"primary.{ZONE}")
    old, epoch = served.primary(), served.epoch()
    await_answer(served, srv_of([(0, old)]), short, forwarder.port, f"_postgresql._tcp.primary.{ZONE}", "SRV")
    watch = Watch(served)
    served.wait(lambda: old.ttorch("switchover", check=False).returncode == 0, 30, "another member is the primary")
    seen = watch.result()
    new = served.wait_new_epoch(epoch)
    opened = opened_ms(served, epoch)
    assert seen.keys() == {member.name for member in served.members}
    assert {port for _, port in seen.values()} == {new.port}
    assert min(at for at, _ in seen.values()) >= opened
    served.wait(lambda: short(forwarder.port, f"_postgresql._tcp.primary.{ZONE}", "SRV") == srv_of([(0, new)]), 3,
                "the forwarder has forgotten the old one after its second")
    served.wait_redundant()


def use_server(cluster, server, secret=nameserver.SECRET):
    """All members send updates to this server from now on."""
    key_file = cluster.directory / "tsig"
    key_file.write_text(secret + "\n", encoding="utf-8")
    key_file.chmod(0o600)
    give(key_file)
    for member in cluster.members:
        member.write_config(dns={"zone": ZONE, "listen": ["127.0.0.1"], "port": member.dns_port, "update": {
            "server": f"127.0.0.1:{server.port}", "zone": "example.org", "key_name": nameserver.KEY,
            "key_file": str(key_file)}})
        member.kill_daemon()
    cluster.wait_redundant()


def records(server):
    """(mark, addresses of primary, standbys, any) as the server holds them."""
    return [short(server.port, f"{name}.{ZONE}", *kind) for name, *kind in
            (("_ttorch", "TXT"), ("primary",), ("standbys",), ("any",))]


def mark_of(server):
    """(epoch, index) in the mark; None if there is none."""
    found = re.fullmatch(r'"cluster=[0-9a-f]{16} epoch=(\d+) index=(\d+)"', (short(server.port, f"_ttorch.{ZONE}", "TXT") or [""])[0])
    return found and (int(found[1]), int(found[2]))


def row_of(member):
    return next(row for row in member.status()["publishing"] if row["output"] == "dns.update.server")


def nsupdate(server, *lines):
    """Somebody else who holds the key."""
    text = "\n".join([f"server 127.0.0.1 {server.port}", "zone example.org", *lines, "send", ""])
    done = subprocess.run(["nsupdate", "-y", f"hmac-sha256:{nameserver.KEY}:{nameserver.SECRET}"], input=text,
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


def switch(cluster):
    """Another member becomes the primary; returns the new epoch."""
    old, epoch = cluster.primary(), cluster.epoch()
    cluster.wait(lambda: old.ttorch("switchover", check=False).returncode == 0, 30, "another member is the primary")
    cluster.wait_new_epoch(epoch)
    return cluster.epoch()


@pytest.mark.parametrize("kind", [nameserver.Named, nameserver.Knotd])
def test_updates(served, kind):
    """A name server gets the records of the newest epoch, never those of an older one, and gets them again when it has
    lost them."""
    server = kind(served).start("example.org SOA")
    use_server(served, server)
    served.wait(lambda: mark_of(server) and mark_of(server)[0] == served.epoch(), 10, "the server has the epoch")
    await_answer(served, [["127.0.0.1"]] * 3, lambda: records(server)[1:])

    epoch = switch(served)
    served.wait(lambda: mark_of(server) and mark_of(server)[0] == epoch, 10, "the server has the new epoch")
    served.wait(lambda: row_of(served[served.status()["leader"]])["index"], 5, "the status tells that it was acknowledged")

    served.wait_redundant()
    cluster_id = served.status()["cluster_id"]
    foreign = f"cluster={cluster_id} epoch={epoch + 1000} index=1"
    nsupdate(server, f"update delete _ttorch.{ZONE} TXT", f'update add _ttorch.{ZONE} 1 TXT "{foreign}"',
             f"update delete primary.{ZONE} A", f"update add primary.{ZONE} 1 A 192.0.2.9")
    switch(served)
    served.wait_redundant()
    assert records(server)[:2] == [[f'"{foreign}"'], ["192.0.2.9"]], "what a newer epoch wrote stays"

    if kind is nameserver.Knotd:  # the rest is the same
        server.stop()
        return
    nsupdate(server, f"update delete _ttorch.{ZONE} TXT")
    epoch = switch(served)
    served.wait(lambda: mark_of(server) and mark_of(server)[0] == epoch, 10, "a lost mark is written again")
    await_answer(served, [["127.0.0.1"]] * 3, lambda: records(server)[1:])
    served.wait_redundant()
    server.stop()


def test_updates_refused(served):
    """A wrong key is told once in the log, and stands in the status; all else goes on. With the right one it heals."""
    server = nameserver.Named(served)
    server.start("example.org SOA")
    use_server(served, server, secret="d3Jvbmcgc2VjcmV0IHdyb25nIHNlY3JldCB3cm9uZyE=")
    leader = served[served.status()["leader"]]
    served.wait(lambda: row_of(leader)["error"], 10, "the status says what is wrong")
    assert "does not accept the key ttorch-key.: BADSIG" in row_of(leader)["error"]
    assert leader.log().count("BADSIG") == 1
    assert mark_of(server) is None
    await_answer(served, "NOERROR", rcode, leader.dns_port, f"primary.{ZONE}")
    server.stop()
    served.wait(lambda: "BADSIG" not in row_of(leader)["error"], 20, "the server is gone")
    assert "connection refused" in row_of(leader)["error"]


@pytest.mark.limit(60)
def test_killed_primary_and_no_quorum(served):
    """Comes last: the cluster is not whole afterwards."""
    old, epoch = served.primary(), served.epoch()
    old.kill_everything()
    rest = [member for member in served.members if member is not old]
    new = served.wait(lambda: (served.epoch() or 0) > epoch and served.primary(), 15, "a new primary is open")
    for member in rest:
        served.wait(lambda m=member: ask_srv(m.dns_port, f"_postgresql._tcp.primary.{ZONE}") == ("NOERROR", new.port), 5,
                    f"{member} names it")
        # Nobody else is there to be read from: the standbys are those that stream, or else the primary.
        told = served.wait(lambda m=member: short(m.dns_port, f"_postgresql._tcp.{ZONE}", "SRV"), 5, "an answer")
        assert not any(old.name in line for line in told)
    new.kill_everything()
    last = next(member for member in rest if member is not new)
    served.wait(lambda: rcode(last.dns_port, f"primary.{ZONE}") == "SERVFAIL", 10, "it does not repeat old news")
    for name in (ZONE, f"standbys.{ZONE}", f"{last.name}.{ZONE}", f"nobody.{ZONE}"):
        assert rcode(last.dns_port, name) == "SERVFAIL"
    assert rcode(last.dns_port, "example.com") == "REFUSED"
