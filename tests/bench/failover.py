"""How long writes stop, event by event; and `switchover` alone, with and without a load beside it."""
import contextlib
import itertools
import json
import re
import signal
import statistics
import sys
import time

import processes
from clients import Client
from cluster import BUILD
from faults import FAULTS
from hosts import enter
from load import Load
from report import Report
from swift import SwiftHosts
from writers import Writers

PROBE_TIMEOUT_MS = 3000  # the default
QUIET = 1.0  # seconds without a fault before each one, for comparison
WRITERS, RATE = 4, 100
WORST = 2.5  # of the median, at most
FILLER_ROWS = 440_000  # about 100 MB, index included
ROWS = {}


class Row:
    def __init__(self, name, title, budget, measure, rounds, shape):
        self.name, self.title, self.budget = name, title, budget
        self.measure, self.rounds, self.shape = measure, rounds, shape


def row(name, title, budget, rounds=20, **shape):
    """`budget` in ms, or a function of the lease in ms; 0 = no longer than without a fault. `shape` of its cluster."""
    def add(function):
        ROWS[name] = Row(name, title, budget, function, rounds, shape)
        return function
    return add


class Round:
    """What one event did, in ms."""

    def __init__(self, outage, quiet, steps=None, **more):
        self.outage, self.quiet, self.steps, self.more = outage, quiet, steps or {}, more


class Ground:
    """A cluster on hosts, with the writers."""

    def __init__(self, lease, shape):
        parameters = {"checkpoint_completion_target": "0"}  # a rewind waits for the first checkpoint
        self.hosts = SwiftHosts(lease=lease, postgresql={"parameters": parameters}, **shape).start()
        try:
            self.hosts.wait_redundant(60)
            self.hosts.primary().query("CREATE TABLE IF NOT EXISTS ledger (number bigint)")
            self.writers = self.hosts.clients = Writers(self.hosts.data_members, WRITERS, RATE).start()
        except BaseException:
            self.hosts.close()
            raise

    def close(self):
        self.hosts.close()

    def leader(self):
        status = self.hosts.status()
        return self.hosts[status["leader"]] if status and status["leader"] else None

    def settle(self, leads=False):
        """Every member streams and everybody writes; the Raft leader is not on the primary's host, unless `leads`."""
        hosts = self.hosts
        hosts.wait_redundant(90)
        hosts.wait_writes()
        self.move_on()
        if not leads:
            hosts.wait(lambda: self.leader() not in (None, hosts.primary()), 60, "the Raft leader is elsewhere")
        time.sleep(QUIET)  # measured, too

    def move_on(self):
        """WAL goes on to its next file, and what is older goes, as when hours have passed: each change of primary leaves
        a file that would stay until then."""
        self.hosts.primary().query("SELECT pg_switch_wal(); CHECKPOINT")
        for standby in self.hosts.standbys():
            standby.query("CHECKPOINT")

    def lead_on_primary(self):
        """All daemons are restarted together until the primary's wins the election: it soon gives it away. (One that
        went on would hardly win: its first word to a restarted one is lost on the old connection.)"""
        for _ in range(20):
            primary = self.hosts.primary()
            if primary is not None and self.leader() is primary and self.hosts.is_redundant():
                return
            for member in self.hosts.members if primary else []:
                FAULTS["daemon killed"](member)
            self.hosts.wait(lambda: self.leader() is not None and self.hosts.is_redundant(), 60, "a leader")
        raise AssertionError("the Raft leader is never on the primary's host")

    def strike(self, blow, until):
        """One event: `blow()` returns what heals it, `until()` tells that it is over."""
        hosts, writers = self.hosts, self.writers
        epoch, begun, wall = hosts.epoch(), time.monotonic(), time.time() * 1000
        quiet = writers.outage(begun - QUIET, begun)
        heal = blow()
        try:
            hosts.wait(lambda: until(epoch, begun), 60, "the event is over")
            hosts.wait_writes(30)
            outage = writers.outage(begun)
        finally:
            if heal is not None:
                heal()
        now = hosts.wait(hosts.epoch, 30, "an epoch")
        return Round(outage * 1000, quiet * 1000, self.steps(epoch, wall), failovers=now - epoch)

    def is_opened(self, epoch, _begun):
        return (self.hosts.epoch() or 0) > epoch and self.hosts.primary()

    def passed(self, seconds):
        """Something that need not be noticed: it is over when this time has passed."""
        return lambda _epoch, begun: time.monotonic() > begun + seconds

    def steps(self, epoch, wall_ms):
        """When the coordinator saw what, in ms after the strike: {step: ms}. Empty without a change of primary."""
        member = next(member for member in self.hosts.members if member.is_on and member.status())
        entries = json.loads(member.ttorch("history", "--json"))["history"]
        opened = next((entry for entry in reversed(entries) if entry["kind"] == "opened"), None)
        if opened is None or opened["epoch"] <= epoch:
            return {}
        return trace_steps(opened, wall_ms)


def trace_steps(opened, wall_ms):
    found = [(what, int(after)) for what, after in re.findall(r"[:,] ([^,+]+) \+(\d+) ms", opened["reason"])]
    if not found:
        return {}
    suspected = opened["time_ms"] - max(after for _, after in found) - wall_ms
    steps = {"suspected": suspected}
    for what, after in found:
        name = "answered" if re.fullmatch(r"m\d+", what) else what
        steps[name] = max(suspected + after, steps.get(name, 0))
    return steps


# ---- the rows ----

def failover_of(name):
    def measure(ground, _round):
        ground.settle()
        primary = ground.hosts.primary()
        return ground.strike(lambda: FAULTS[name](primary), ground.is_opened)
    return measure


row("killed", "PostgreSQL killed", 200)(failover_of("postmaster killed"))
row("frozen", "PostgreSQL frozen", PROBE_TIMEOUT_MS + 250)(failover_of("PostgreSQL frozen"))
row("power", "host power cut, the Raft leader elsewhere", lambda lease: lease + 250)(failover_of("power cut"))


@row("power-leader", "host power cut, the Raft leader on it", lambda lease: lease + 350)
def power_leader(ground, _round):
    ground.settle(leads=True)
    ground.lead_on_primary()
    primary = ground.hosts.primary()
    return ground.strike(lambda: FAULTS["power cut"](primary), ground.is_opened)


@row("cut-off", "primary cut off from everyone", lambda lease: lease + 250)
def cut_off(ground, _round):
    """A client on its own host asks for local commits only, which nothing but the lease ends."""
    ground.settle()
    primary = ground.hosts.primary()
    inside = Client(primary, 99, enter, primary.namespace)
    inside.conninfos = [primary.conninfo() + " options='-c synchronous_commit=local'"]
    inside.pause = 0.002
    inside.start()
    try:
        ground.hosts.wait(lambda: inside.acknowledged, 20, "the client inside writes")
        begun = time.monotonic()
        result = ground.strike(lambda: FAULTS["unplugged"](primary), ground.is_opened)
        result.more["last_write_ms"] = (inside.acknowledged[-1][1] - begun) * 1000
    finally:
        inside.stop()
    return result


@row("switchover", "planned switchover", 250)
def switchover(ground, _round):
    ground.settle()
    primary, failed = ground.hosts.primary(), ground.writers.failed

    def blow():
        primary.ttorch("switchover")
    result = ground.strike(blow, ground.is_opened)
    result.more["failed_commits"] = ground.writers.failed - failed
    return result


@row("standby", "one of two synchronous standbys dies", 0)
def standby(ground, _round):
    ground.settle()
    victim = next(member for member in ground.hosts.standbys() if member is not ground.leader())
    return ground.strike(lambda: FAULTS["power cut"](victim), ground.passed(2))


@row("last-standby", "the last standby dies: the rule degrades", 1000, data=2, witness=True)
def last_standby(ground, _round):
    ground.settle()
    victim = ground.hosts.standbys()[0]
    return ground.strike(lambda: FAULTS["power cut"](victim), lambda _epoch, begun: ground.writers.wrote_after(begun + 3))


@row("leader", "the Raft leader's host dies, not the primary's", 0)
def leader(ground, _round):
    ground.settle()
    victim = ground.leader()
    return ground.strike(lambda: FAULTS["power cut"](victim), ground.passed(2))


@row("daemon", "ttorchd killed, on any host", 0)
def daemon(ground, number):
    ground.settle()
    hosts = ground.hosts
    targets = [hosts.primary(), ground.leader(), *[m for m in hosts.standbys() if m is not ground.leader()]]
    return ground.strike(lambda: FAULTS["daemon killed"](targets[number % 3]), ground.passed(3))


@row("two-daemons", "two ttorchd killed at once, back within the lease", 0)
def two_daemons(ground, _round):
    ground.settle()
    victims = [ground.hosts.primary(), ground.leader()]

    def blow():
        for victim in victims:
            FAULTS["daemon killed"](victim)
    return ground.strike(blow, ground.passed(3))


def fill(hosts):
    primary = hosts.wait(hosts.primary, 30, "a primary")
    if not primary.query("SELECT to_regclass('filler')"):
        primary.query("CREATE TABLE filler AS SELECT n AS id, repeat('x', 180) AS text "
                      f"FROM generate_series(1, {FILLER_ROWS}) n; CREATE INDEX ON filler (id)")


def until_redundant(ground, blow):
    """Measures until every member streams again and counts, not until writes go on."""
    fill(ground.hosts)
    ground.settle()
    primary, begun = ground.hosts.primary(), time.monotonic()
    result = ground.strike(lambda: blow(primary), ground.is_opened)
    ground.hosts.wait_redundant(90)
    result.outage = (time.monotonic() - begun) * 1000
    return result


@row("redundant", "full redundancy after a kill, 100 MB of data", 3000)
def redundant(ground, _round):
    return until_redundant(ground, FAULTS["postmaster killed"])


def diverge_and_kill(primary):
    """It writes what nobody else receives: what its senders, stopped, have not read leaves the host in no socket."""
    with contextlib.closing(primary.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = local; SELECT pid FROM pg_stat_replication")
        processes.send([pid for pid, in cursor.fetchall()], signal.SIGSTOP)
        cursor.execute("INSERT INTO ledger SELECT -1 FROM generate_series(1, 10)")
    return FAULTS["postmaster killed"](primary)


@row("rewound", "the same, and the old primary has to be rewound", 3000)
def rewound(ground, _round):
    hosts, epoch = ground.hosts, ground.hosts.epoch()
    result = until_redundant(ground, diverge_and_kill)
    entries = json.loads(hosts.primary().ttorch("history", "--json"))["history"]
    assert any("was rewound" in entry["reason"] for entry in entries if entry["epoch"] > epoch), "it was not rewound"
    return result


# ---- many rounds ----

def lease_ms(text):
    number, unit = re.fullmatch(r"([\d.]+)(ms|s)", text).groups()
    return float(number) * (1 if unit == "ms" else 1000)


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def judge(budget, rounds):
    """The median must stay within it, and the worst near the median. 0: within what is seen without a fault, give or take
    a writer's turn."""
    outages = [each.outage for each in rounds]
    median = statistics.median(outages)
    if budget == 0:
        return "met" if median <= max(each.quiet for each in rounds) + 1000 / RATE else "missed"
    if median > budget:
        return "missed"
    return "met" if max(outages) <= WORST * median else f"met, but the worst is over {WORST} x the median"


def medians(rounds):
    """Of each step's time, in the order of the steps."""
    names = sorted({name for each in rounds for name in each.steps},
                   key=lambda name: statistics.median(each.steps[name] for each in rounds if name in each.steps))
    return {name: round(statistics.median(each.steps[name] for each in rounds if name in each.steps)) for name in names}


def add_row(report, wanted, budget, rounds, complaint):
    outages = [each.outage for each in rounds]
    more = {name: max(each.more[name] for each in rounds) for name in ("last_write_ms", "failed_commits")
            if rounds and name in rounds[0].more}
    changes = sum(each.more["failovers"] for each in rounds)
    report.add(name=wanted.name, event=wanted.title, budget=budget, rounds=len(rounds),
               median=statistics.median(outages) if outages else None, worst=max(outages, default=None),
               quiet=statistics.median(each.quiet for each in rounds) if outages else None,
               verdict=judge(budget, rounds) if outages else None, failovers=changes, all=sorted(map(round, outages)),
               steps=medians(rounds), ended_early=complaint, **more)
    if complaint:
        report.notes.append(f"{wanted.name} ended early: {complaint}")


class Grounds:
    """One cluster at a time, kept as long as its shape is wanted and nothing goes wrong in it."""

    def __init__(self, lease):
        self.lease, self.shape, self.ground = lease, None, None

    def take(self, shape):
        if self.ground is None or self.shape != shape:
            self.drop()
            self.ground, self.shape = Ground(self.lease, shape), shape
        return self.ground

    def drop(self):
        ground, self.ground = self.ground, None
        if ground is not None:
            ground.close()


def measure_row(grounds, wanted, count, report):
    """All rounds of one row. A round that fails ends it, and the cluster."""
    rounds, complaint = [], None
    try:
        ground = grounds.take(wanted.shape)
        for number in range(count):
            rounds.append(wanted.measure(ground, number))
            say(f"{wanted.name} {number + 1}/{count}: {rounds[-1].outage:.0f} ms")
        ground.settle()
        ground.hosts.keep_logs(BUILD / "bench-logs" / wanted.name)
        report.notes += [f"{wanted.name}: VIOLATION: {text}" for text in ground.hosts.violations()]
    except (AssertionError, OSError) as error:
        complaint = str(error).splitlines()[0]
        say(f"{wanted.name}: {error}")
        if grounds.ground is not None:
            grounds.ground.hosts.keep_logs(BUILD / "bench-logs" / wanted.name)
        grounds.drop()
    budget = wanted.budget(lease_ms(grounds.lease)) if callable(wanted.budget) else wanted.budget
    add_row(report, wanted, budget, rounds, complaint)


COLUMNS = [("event", "event"), ("budget", "budget, ms"), ("median", "median"), ("worst", "worst"), ("quiet", "without"),
           ("verdict", ""), ("rounds", "rounds"), ("last_write_ms", "last local write"), ("failed_commits", "failed"),
           ("all", "all")]


def trace_notes(report):
    """Where the time of each failover went."""
    for each in report.rows:
        if each["steps"]:
            steps = ", ".join(f"{name} {ms}" for name, ms in each["steps"].items())
            report.notes.append(f"{each['name']}, ms after the event: {steps}")
        if each["budget"] == 0 and each["failovers"]:
            report.notes.append(f"{each['name']}: {each['failovers']} changes of primary, which nothing asked for")


def run_failover(options):
    wanted = [ROWS[name] for name in options.only or ROWS]
    report = Report("failover", "How long nobody's write is acknowledged, in ms; `without`: in a second without a fault",
                    COLUMNS, lease=options.lease, writers=f"{WRITERS} x {RATE}/s")
    grounds = Grounds(options.lease)
    try:
        for _, group in itertools.groupby(sorted(wanted, key=lambda each: bool(each.shape)), lambda each: each.shape):
            for each in group:
                measure_row(grounds, each, options.rounds or each.rounds, report)
    finally:
        grounds.drop()
    trace_notes(report)
    return report


def run_switchover(options):
    columns = [COLUMNS[0], ("load", "beside it"), *COLUMNS[1:]]
    report = Report("switchover", "How long nobody's write is acknowledged during a planned switchover, in ms", columns,
                    lease=options.lease, writers=f"{WRITERS} x {RATE}/s")
    grounds, wanted = Grounds(options.lease), ROWS["switchover"]
    try:
        for clients in options.load:
            ground = grounds.take({})
            with Load(ground.hosts, clients) if clients else contextlib.nullcontext():
                measure_row(grounds, wanted, options.rounds or wanted.rounds, report)
            report.rows[-1]["load"] = f"pgbench -c {clients}" if clients else "nothing"
    finally:
        grounds.drop()
    trace_notes(report)
    return report
