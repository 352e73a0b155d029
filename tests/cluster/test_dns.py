"""DNS: ttorchd's own answers, and what it writes to name servers."""
import json
import socket
import struct
import threading
import time

import pytest

import nameserver
from cluster import free_ports
from nameserver import ask_srv, dig, rcode, short

ZONE = "db.example.org"


def give_ports(cluster, **dns):
    """Every member answers on a port of its own."""
    for member, port in zip(cluster.members, free_ports(len(cluster.members))):
        member.dns_port = port
        member.write_config(dns={"zone": ZONE, "listen": ["127.0.0.1", "::1"], "port": port, **dns})
    return cluster


@pytest.fixture(scope="module")
def served(clusters):
    """Three members that answer for the zone, shared by the tests of this file."""
    cluster = give_ports(clusters.make(3)).found()
    yield cluster
    clusters.close_own()


def srv_of(members):
    return sorted(f"{priority} 1 {member.port} {member.name}.{ZONE}." for priority, member in members)


def test_every_name(served):
    """The same from every member, over UDP and TCP, IPv4 and IPv6."""
    primary, standbys = served.primary(), served.standbys()
    for member in served.members:
        port = member.dns_port
        served.wait(lambda p=port: len(short(p, f"_postgresql._tcp.standbys.{ZONE}", "SRV")) == 2, 5, "both are streaming")
        every = [(0, primary), *((10, standby) for standby in standbys)]
        assert short(port, f"_postgresql._tcp.{ZONE}", "SRV") == srv_of(every)
        assert short(port, f"_postgresql._tcp.primary.{ZONE}", "SRV") == srv_of(every[:1])
        assert short(port, f"_postgresql._tcp.standbys.{ZONE}", "SRV", "+tcp") == srv_of(every[1:])
        assert short(port, f"primary.{ZONE}") == ["127.0.0.1"]
        assert short(port, f"standbys.{ZONE}", server="::1") == ["127.0.0.1"] * 2
        assert short(port, f"any.{ZONE}", "+tcp", server="::1") == ["127.0.0.1"] * 3
        assert short(port, f"{primary.name}.{ZONE}") == ["127.0.0.1"]
        assert short(port, ZONE, "NS") == [f"m{i}.{ZONE}." for i in (1, 2, 3)]
        serial = member.get("/v1/topology")["index"]
        assert short(port, ZONE, "SOA")[0] == f"m1.{ZONE}. hostmaster.{ZONE}. {serial} 60 10 600 1"
        assert "flags: qr aa rd;" in dig(port, f"primary.{ZONE}")


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
        assert rcode(port, *words) == code


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
    assert short(port, f"primary.{ZONE}", "+tcp") == ["127.0.0.1"]


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
        deadline = time.monotonic() + 20
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
    """Within 100 ms of its opening every member, and a resolver in between, names the new primary."""
    forwarder = nameserver.Forwarder(served, [member.dns_port for member in served.members])
    forwarder.start(f"primary.{ZONE}")
    old, epoch = served.primary(), served.epoch()
    assert short(forwarder.port, f"_postgresql._tcp.primary.{ZONE}", "SRV") == srv_of([(0, old)])
    watch = Watch(served)
    served.wait(lambda: old.ttorch("switchover", check=False).returncode == 0, 30, "another member is the primary")
    seen = watch.result()
    new = served.wait_new_epoch(epoch)
    opened = opened_ms(served, epoch)
    assert seen.keys() == {member.name for member in served.members}
    late = {name: round(at - opened) for name, (at, port) in seen.items()}
    assert {port for _, port in seen.values()} == {new.port}
    assert max(late.values()) <= 100, late
    served.wait(lambda: short(forwarder.port, f"_postgresql._tcp.primary.{ZONE}", "SRV") == srv_of([(0, new)]), 3,
                "the forwarder has forgotten the old one after its second")
    served.wait_redundant()


@pytest.mark.limit(60)
def test_killed_primary_and_no_quorum(served):
    """Comes last: the cluster is not whole afterwards."""
    old, epoch = served.primary(), served.epoch()
    old.kill_everything()
    rest = [member for member in served.members if member is not old]
    new = served.wait(lambda: (served.epoch() or 0) > epoch and served.primary(), 15, "a new primary is open")
    for member in rest:
        served.wait(lambda m=member: ask_srv(m.dns_port, f"_postgresql._tcp.primary.{ZONE}") == ("NOERROR", new.port), 1,
                    f"{member} names it")
        # Nobody else is there to be read from: the standbys are those that stream, or else the primary.
        assert old.name not in dig(member.dns_port, f"_postgresql._tcp.{ZONE}", "SRV", "+short")
    new.kill_everything()
    last = next(member for member in rest if member is not new)
    began = time.monotonic()
    served.wait(lambda: rcode(last.dns_port, f"primary.{ZONE}") == "SERVFAIL", 10, "it does not repeat old news")
    assert time.monotonic() - began < 3.0, "within a lease of 2 s"
    for name in (ZONE, f"standbys.{ZONE}", f"{last.name}.{ZONE}", f"nobody.{ZONE}"):
        assert rcode(last.dns_port, name) == "SERVFAIL"
    assert rcode(last.dns_port, "example.com") == "REFUSED"
