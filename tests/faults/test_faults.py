"""The most important faults on hosts. `./dev soak` mixes all of them at random.

Each test ends with every member streaming again, no acknowledged row lost, and no two servers that acknowledged at
the same time: the fixture `hosts` sees to that.
"""
import time

import pytest

from clients import Client, Clients
from faults import FAULTS, PROCESSES, SITUATIONS


def strike(name, *members):
    """Heals all of them, when called."""
    heals = [FAULTS[name](member) for member in members]
    assert all(heals), f"{name}: nothing to strike"
    return lambda: [heal() for heal in heals]


def test_power_cut_during_founding(shared, limit):
    """Of the member that makes the first data directory. The other tests go on with these hosts."""
    hosts = shared.found(3)
    founder = hosts.wait(lambda: next((host for host in hosts.members if host.pids(r"/initdb ")), None), 30, "initdb runs")
    strike("power cut", founder)()
    hosts.wait_redundant(60)
    hosts.begin_clients()
    hosts.wait_writes()


@pytest.mark.parametrize("name", ["power cut", "host frozen", "cut off from members", "deaf", "daemon frozen", "guard frozen",
                                  "postmaster frozen", "PostgreSQL's disk hangs", "PostgreSQL's disk fails"])
def test_another_takes_over(hosts, name):
    """Healed, the old primary is none any more."""
    old = hosts.primary()
    heal = strike(name, old)
    try:
        new = hosts.wait_new_primary(old, 25)
        hosts.wait_writes()
    finally:
        heal()
    hosts.wait_redundant(60)
    assert hosts.primary() is new


@pytest.mark.parametrize("name", ["cut off from clients", "cut off from one member", "daemon killed",
                                  "clock an hour fast", "clock an hour slow"])
def test_the_primary_goes_on(hosts, name):
    """A failover would help nobody."""
    primary, epoch, begun = hosts.primary(), hosts.epoch(), time.monotonic()
    heal = strike(name, primary)
    try:
        hosts.wait(lambda: hosts.clients.wrote_after(begun + 2.5), 20, "clients write past the lease")
        assert (hosts.primary(), hosts.epoch()) == (primary, epoch)
    finally:
        heal()


def test_clocks_are_set(hosts):
    """The faults above are none otherwise."""
    host = hosts.primary()
    right = float(host.query("SELECT extract(epoch FROM clock_timestamp())"))
    heal = strike("clock an hour slow", host)
    try:
        assert float(host.query("SELECT extract(epoch FROM clock_timestamp())")) < right - 1800
    finally:
        heal()


@pytest.mark.parametrize("name", ["a fifth of all packets lost", "half of what it is sent lost",
                                  "packets late and out of order"])
def test_a_bad_cable(hosts, name):
    """With the primary as it is, or with another one."""
    heal, begun = strike(name, hosts.primary()), time.monotonic()
    try:
        hosts.wait(lambda: hosts.clients.wrote_after(begun + 2), 30, "clients write")
    finally:
        heal()


@pytest.mark.parametrize("what", ["guard", "backend", "checkpointer"])
def test_killed_on_the_primary(hosts, what):
    """PostgreSQL is never restarted as the primary it was: whoever goes on has a new epoch."""
    epoch = hosts.epoch()
    strike(f"{what} killed", hosts.primary())
    hosts.wait_new_epoch(epoch, 15)
    hosts.wait_writes()


@pytest.mark.parametrize("name", ["startup killed", "WAL receiver frozen", "guard killed"])
def test_on_a_standby(hosts, name):
    """The other standby acknowledges meanwhile."""
    primary, epoch, begun = hosts.primary(), hosts.epoch(), time.monotonic()
    heal = strike(name, hosts.standbys()[0])
    try:
        hosts.wait(lambda: hosts.clients.wrote_after(begun + 2), 10, "clients write")
    finally:
        heal()
    hosts.wait_redundant(60)
    assert (hosts.primary(), hosts.epoch()) == (primary, epoch)


def test_the_fence_fails(hosts):
    """Guard and network at once: nobody kills the old primary, and yet it acknowledges nothing."""
    old = hosts.primary()
    heal_guard, heal_network = strike("guard frozen", old), strike("cut off from members", old)
    try:
        hosts.wait_new_primary(old, 25)
        hosts.wait_writes()
        assert old.pids(PROCESSES["postmaster"])
    finally:
        heal_network()
        heal_guard()


def test_postgres_disk_full(hosts):
    """Its rows go to another host, or it goes on within the space it has; emptied, all is as before."""
    heal = strike("PostgreSQL's disk full", hosts.primary())
    try:
        hosts.wait_writes(30)
    finally:
        heal()


def test_daemon_disk_full(hosts):
    """It can record nothing any more."""
    heal = strike("ttorchd's disk full", hosts.primary())
    try:
        hosts.wait_writes(30)
    finally:
        heal()


def test_daemon_disk_fails(hosts):
    """A member that cannot keep the record any more ends, rather than take part in decisions that it may forget."""
    standby, epoch = hosts.standbys()[0], hosts.epoch()
    heal, begun = strike("ttorchd's disk fails", standby), time.monotonic()
    try:
        strike("postmaster killed", hosts.primary())  # something has to be recorded
        hosts.wait(lambda: any(when > begun for when, _, _ in standby.ends), 30, f"ttorchd of {standby} ends")
        assert standby.ends[-1][1] > 0
        hosts.wait_new_epoch(epoch, 30)
        hosts.wait_writes(30)
    finally:
        heal()


def test_daemon_disk_hangs(hosts):
    """Of a standby, and something is to be recorded: the two others are a majority."""
    epoch, heal = hosts.epoch(), strike("ttorchd's disk hangs", hosts.standbys()[0])
    try:
        strike("postmaster killed", hosts.primary())
        hosts.wait_new_epoch(epoch, 30)
        hosts.wait_writes(30)
    finally:
        heal()


def test_majority_lost_and_restored(hosts):
    """One of three acknowledges nothing, and all go on when the others are back."""
    left = hosts.primary()
    heal = strike("power cut", *hosts.standbys())
    struck = time.monotonic()
    try:
        hosts.wait(lambda: not left.status()["fresh"], 20, f"{left} knows that it is alone")
        assert not hosts.clients.wrote_after(struck + 1)
    finally:
        heal()


def test_everything_loses_power(hosts):
    strike("power cut", *hosts.members)()


@pytest.mark.parametrize("situation", ["switchover", "clone", "rewind", "rule change", "promotion"])
def test_power_cut_during(hosts, rng, situation):
    """Of whoever is most in the middle of it."""
    moment = SITUATIONS[situation](hosts, rng)
    assert moment.came
    target = hosts.primary() or next(member for member in hosts.members if member.is_on)
    heal = strike("power cut", target)
    moment.end()
    heal()


def test_power_cut_within_rewind(hosts, rng):
    """Of the one that is rewound: half of its files are of one history, half of another."""
    moment = SITUATIONS["rewind"](hosts, rng)
    assert moment.came
    hosts.wait(lambda: moment.host.pids(r"/pg_rewind .*--target"), 30, "pg_rewind runs")
    strike("power cut", moment.host)()


# ---- can the checks fail? ----

class Server:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name

    def conninfo(self):
        return ""


def acknowledged(server, number, timeline, sent, received):
    client = Client(server, number, None, None)
    client.record(number, timeline, sent, received)
    return client


@pytest.mark.parametrize("second, found", [
    ((5, 3.0, 4.0), 0),          # one after the other
    ((5, 1.5, 4.0), 0),          # overlapping, in either order: nobody can tell
    ((3, 0.1, 0.2), 0),          # an earlier timeline, earlier
    ((3, 2.1, 2.2), 1),          # an earlier timeline, sent after the later one had acknowledged
    ((4, 3.0, 4.0), 1),          # one timeline of two servers
])
def test_overlaps_are_found(second, found):
    clients = Clients([], None)
    clients.each = [acknowledged(Server("a"), 0, 4, 1.0, 2.0), acknowledged(Server("b"), 1, *second)]
    assert len(clients.overlaps()) == found


def test_lost_rows_are_found(hosts):
    hosts.wait_writes()
    client = hosts.clients.each[0]
    client.acknowledged.append((-1, time.monotonic()))
    assert any("lost" in violation for violation in hosts.violations())
    client.acknowledged.remove(next(entry for entry in client.acknowledged if entry[0] == -1))


# ---- two and a witness, from here on ----

def test_data_link_cut(shared, limit):
    """The standby is out of reach, the witness is not: the primary stays, says that it is alone, and goes on."""
    hosts = shared.found(2, True)
    hosts.wait_redundant(60)
    hosts.begin_clients()
    primary, epoch = hosts.primary(), hosts.epoch()
    heal = strike("cut off from one member", primary)
    try:
        hosts.wait(lambda: (status := primary.status()) and status["degraded"] and len(status["rules"]) == 1, 30,
                   "the primary goes on alone")
        hosts.wait_writes()
        assert (hosts.primary(), hosts.epoch()) == (primary, epoch)
    finally:
        heal()
    hosts.wait_redundant(60)
    assert (hosts.primary(), hosts.epoch()) == (primary, epoch)
    assert not hosts.violations()


# ---- five, from here on ----

@pytest.mark.limit(240)
def test_five_members(shared, limit):
    """With each hearing its neighbours only, clients write on. Split, the side with three members does."""
    hosts = shared.found(5)
    hosts.wait_redundant(90)
    hosts.begin_clients()
    hosts.wait_writes()
    for name in ("a ring", "split in halves"):
        begun = time.monotonic()
        heal = strike(name, hosts.primary())
        try:
            hosts.wait(lambda: hosts.clients.wrote_after(begun + 5), 40, f"clients write on: {name}")
        finally:
            heal()
        hosts.wait_redundant(90)
    assert not hosts.violations()
