"""The faults. Each is a function that strikes a host and returns what heals it; `FAULTS` has them by name.

Situations are what may be under way when a fault strikes; `SITUATIONS` has them by name. Each brings it about and
returns what ends it, once the moment is there or has been missed.
"""
import shutil
import signal
import subprocess
import threading
import time


import processes

FAULTS, SITUATIONS = {}, {}


def fault(name):
    def add(function):
        FAULTS[name] = function
        return function
    return add


def situation(name):
    def add(function):
        SITUATIONS[name] = function
        return function
    return add


def nothing():
    """Heals what heals itself."""


def all_of(heals):
    def heal():
        for each in heals:
            each()
    return heal


# ---- hosts ----

@fault("power cut")
def power_cut(host):
    host.power_cut()
    return host.power_on


@fault("host frozen")
def host_frozen(host):
    """As a paused virtual machine: nothing runs, nothing answers."""
    host.cluster.network.unplug(host)
    host.freeze()

    def heal():
        host.freeze(False)
        host.cluster.network.plug(host)
    return heal


# ---- network ----

@fault("unplugged")
def unplugged(host):
    host.cluster.network.unplug(host)
    return lambda: host.cluster.network.plug(host)


def cut(host, ways):
    network = host.cluster.network
    for way in ways:
        network.cut(*way)
    return all_of([lambda way=way: network.mend(*way) for way in ways])


def others(host):
    return [member for member in host.cluster.members if member is not host]


@fault("deaf")
def deaf(host):
    """What it sends arrives, what is sent to it does not."""
    return cut(host, [(other, host) for other in [*others(host), None]])


@fault("mute")
def mute(host):
    return cut(host, [(host, other) for other in [*others(host), None]])


@fault("cut off from members")
def cut_off_from_members(host):
    """Clients still reach it: they would not notice by themselves."""
    return cut(host, [way for other in others(host) for way in ((host, other), (other, host))])


@fault("cut off from clients")
def cut_off_from_clients(host):
    return cut(host, [(host, None), (None, host)])


@fault("cut off from one member")
def cut_off_from_one(host):
    other = others(host)[0]
    return cut(host, [(host, other), (other, host)])


def circle(host):
    """All members in their order, from this one on."""
    members = host.cluster.members
    at = members.index(host)
    return members[at:] + members[:at]


def apart(members, together):
    """Cuts every pair of them that is not together."""
    network = members[0].cluster.network
    ways = [(one, other) for one in members for other in members if one is not other and not together(one, other)]
    for way in ways:
        network.cut(*way)
    return all_of([lambda way=way: network.mend(*way) for way in ways])


@fault("split in halves")
def split_in_halves(host):
    """Every second member from this one on, and the others. Clients reach both."""
    members = circle(host)
    half = members[::2]
    return apart(members, lambda one, other: (one in half) == (other in half))


@fault("a ring")
def ring(host):
    """Each hears its two neighbours only: every member has a majority of five, and no two have the same."""
    members = circle(host)
    if len(members) < 4:
        return None  # all are neighbours
    return apart(members, lambda one, other: (members.index(one) - members.index(other)) % len(members)
                 in (1, len(members) - 1))


@fault("deaf for one member")
def deaf_for_one(host):
    return cut(host, [(others(host)[-1], host)])


def again_and_again(do):
    """Until it is healed; `do` is given what waits."""
    stop = threading.Event()

    def repeat():
        while not stop.is_set():
            do(stop.wait)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()

    def heal():
        stop.set()
        thread.join()
    return heal


@fault("loose cable")
def loose_cable(host):
    """Now it is in, now it is not."""
    def shake(wait):
        host.cluster.network.unplug(host)
        wait(0.15)
        host.cluster.network.plug(host)
        wait(0.1)
    return again_and_again(shake)


GOOD = (0, 0, 0)
CABLES = {  # loss, delay and jitter of what the host sends, and of what it is sent
    "a fifth of all packets lost": ((0.2, 0, 0), (0.2, 0, 0)),
    "half of what it sends lost": ((0.5, 0, 0), GOOD),
    "half of what it is sent lost": (GOOD, (0.5, 0, 0)),
    "packets late and out of order": ((0, 0.01, 0.1), (0, 0.01, 0.1)),
    "a long way": ((0, 0.4, 0), (0, 0.4, 0)),
    "what it sends is late": ((0, 0.7, 0.1), GOOD),
}


def wiring(sent, received):
    def strike(host):
        network = host.cluster.network
        return (lambda: network.rewire(host)) if network.wire(host, sent, received) else None
    return strike


for _what, _ways in CABLES.items():
    FAULTS[_what] = wiring(*_ways)


# ---- processes ----

POSTGRES = r"^(postgres: |\S*/postgres )"
PROCESSES = {
    "daemon": r"ttorchd --config",
    "guard": r"^\S*ttorch-guard",
    "postmaster": r"^\S*/postgres ",
    "backend": r"^postgres: .*\d\(\d+\) (INSERT|idle|COMMIT)",
    "startup": r"^postgres: .*startup",
    "checkpointer": r"^postgres: .*checkpointer",
    "WAL writer": r"^postgres: .*walwriter",
    "background writer": r"^postgres: .*background writer",
    "autovacuum launcher": r"^postgres: .*autovacuum launcher",
    "WAL sender": r"^postgres: .*walsender",
    "WAL receiver": r"^postgres: .*walreceiver",
    "PostgreSQL": POSTGRES,
}


def killing(pattern):
    def strike(host):
        pids = host.pids(pattern)
        processes.send(pids[:1], signal.SIGKILL)
        return nothing if pids else None
    return strike


def freezing(pattern):
    def strike(host):
        pids = host.pids(pattern)
        processes.send(pids, signal.SIGSTOP)
        return (lambda: processes.send(pids, signal.SIGCONT)) if pids else None
    return strike


for _what, _pattern in PROCESSES.items():
    if _what != "PostgreSQL":
        FAULTS[f"{_what} killed"] = killing(_pattern)
    FAULTS[f"{_what} frozen"] = freezing(_pattern)


@fault("daemon told to stop")
def daemon_stopped(host):
    """It hands over and ends; it is started again as after a reboot of its unit."""
    processes.send(host.pids(PROCESSES["daemon"]), signal.SIGTERM)
    return nothing


@fault("daemon restarted")
def daemon_restarted(host):
    processes.send(host.pids(PROCESSES["daemon"]), signal.SIGUSR1)
    return nothing


# ---- clocks ----

HOUR = 3600


def setting(off_by):
    """To set it right again is a leap, too."""
    def strike(host):
        host.set_clock(off_by)
        return lambda: host.set_clock(0)
    return strike


FAULTS["clock an hour fast"] = setting(HOUR)
FAULTS["clock an hour slow"] = setting(-HOUR)


@fault("clock leaps")
def clock_leaps(host):
    def leap(wait):
        for off_by in (HOUR, -7, 30, -HOUR, 0):
            host.set_clock(off_by)
            wait(0.3)
    return again_and_again(leap)


# ---- disks ----

DISKS = {"PostgreSQL's": "postgres_disk", "ttorchd's": "daemon_disk"}


def filling(which):
    return lambda host: getattr(host, which).fill()


def telling(which, command):
    def strike(host):
        disk = getattr(host, which)
        disk.tell(command)
        return lambda: disk.tell("well")
    return strike


def failing(which):
    """Nothing can be written until the host is started anew, with a disk that is well."""
    def strike(host):
        getattr(host, which).tell("fail")

        def heal():
            if host.is_on:
                host.power_cut()
                host.power_on()
        return heal
    return strike


for _whose, _which in DISKS.items():
    FAULTS[f"{_whose} disk full"] = filling(_which)
    FAULTS[f"{_whose} disk slow"] = telling(_which, "slow 60")
    FAULTS[f"{_whose} disk very slow"] = telling(_which, "slow 700")
    FAULTS[f"{_whose} disk hangs"] = telling(_which, "hang")
    FAULTS[f"{_whose} disk fails"] = failing(_which)


@fault("data lost")
def data_lost(host):
    """A new disk. Never at the same time as anything that may cost another member its data."""
    host.power_cut()
    shutil.rmtree(host.pgdata, ignore_errors=True)
    return host.power_on


# ---- situations ----

class Moment:
    """A situation that is under way: what ends it, the fault that brought it about, and whether it was met in time."""

    def __init__(self, end=nothing, came=True, fault=None, host=None):
        self.end, self.came, self.fault, self.host = end, came, fault, host


def comes(predicate, timeout):
    """Whether the moment came."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def does(host, activity):
    """The host says about itself that it does this."""
    status = host.status()
    row = next((row for row in status["members"] if row["name"] == host.name), None) if status else None
    return row is not None and activity in (row["state"], row["activity"])


@situation("nothing")
def quiet(_cluster, _rng):
    return Moment()


@situation("switchover")
def switchover(cluster, rng):
    asked = rng.choice(cluster.members)
    process = subprocess.Popen(asked.command("ttorch", "--config", asked.config, "switchover"), cwd=cluster.directory,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(rng.uniform(0.02, 0.5))

    def end():
        process.kill()
        process.wait()
    return Moment(end)


@situation("clone")
def clone(cluster, rng):
    host = rng.choice(cluster.standbys())
    data_lost(host)()
    return Moment(nothing, comes(lambda: does(host, "cloning"), 10), "data lost", host)


@situation("rewind")
def rewind(cluster, _rng):
    """The primary has WAL that nobody else has, and comes back."""
    old = cluster.primary()
    processes.send(old.pids(PROCESSES["WAL sender"]), signal.SIGSTOP)
    connection = old.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = local")
        cursor.execute("CREATE TABLE diverged AS SELECT generate_series(1, 1000); DROP TABLE diverged")
    connection.close()
    old.power_cut()
    comes(lambda: cluster.primary() not in (old, None), 10)
    old.power_on()
    return Moment(nothing, comes(lambda: does(old, "rewinding"), 10), "power cut", old)


@situation("rule change")
def rule_change(cluster, rng):
    host = rng.choice(cluster.standbys())
    host.power_cut()
    came = comes(lambda: (status := cluster.status()) and len(status["rules"]) > 1, 10)
    return Moment(host.power_on, came, "power cut", host)


@situation("promotion")
def promotion(cluster, rng):
    old, epoch, assigned = cluster.primary(), cluster.epoch(), rng.random() < 0.5
    processes.send(old.pids(PROCESSES["postmaster"])[:1], signal.SIGKILL)

    def begun():
        status = cluster.status()
        return status and (status["epoch"] > epoch or status["sealed"] and not assigned)
    return Moment(nothing, comes(begun, 5), "postmaster killed", old)
