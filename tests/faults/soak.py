"""./dev soak: random mixes of real faults, as long as wanted. One JSON line a fault, one a violation, and at the end
`N faults, N violations`. A seed gives the plan of every round; what the machine's timing adds it cannot repeat.
Before it, a whole machine (machine.py) loses its power, and another one is taken down by its watchdog. Meanwhile the
simulator runs beside it; what it found is the line before the last.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import machine  # noqa: E402
from hosts import Hosts  # noqa: E402
from cluster import BUILD  # noqa: E402
from faults import FAULTS, SITUATIONS  # noqa: E402

HEALED = 90  # seconds, from the last healing until every member streams
ROUNDS_A_CLUSTER = 12
SHAPES = [({}, 6), ({"data": 2, "witness": True}, 3), ({"durability": "strict"}, 2), ({"data": 5}, 1)]
ALONE = "data lost"  # together with another fault it may rightly cost acknowledged rows


class Blow:
    """One planned fault."""

    def __init__(self, name, target, at, hold):
        self.name, self.target, self.at, self.hold = name, target, at, hold
        self.host = self.heal = None
        self.duty = ""


def plan_round(rng):
    """The situation, and the faults with their times in seconds after it is there."""
    kind = rng.random()
    situation = rng.choice([*["nothing"] * 4, *(name for name in SITUATIONS if name != "nothing")])
    names = [name for name in FAULTS if name != ALONE]

    def blow(name, target, at):
        return Blow(name, target, at, rng.choice([rng.uniform(0.05, 1.5), rng.uniform(1.5, 8)]))

    if kind < 0.04 and situation == "nothing":
        return situation, [blow(ALONE, rng.choice(["primary", "standby"]), 0)]
    if kind < 0.14:  # a majority, or all, of one kind
        name = rng.choice(["power cut", "unplugged", "host frozen", "daemon killed", "postmaster killed"])
        return situation, [blow(name, f"#{i}", rng.choice([0, rng.uniform(0, 0.5)])) for i in range(rng.choice([2, 3]))]
    count = rng.choice([1, 1, 1, 2, 2, 3])
    targets = ["primary", "primary", "standby", "any"]
    return situation, [blow(rng.choice(names), rng.choice(targets), rng.uniform(0, 2) * (i > 0)) for i in range(count)]


def published_primary(cluster):
    return cluster.published.get(max(cluster.published, default=0))


def choose(cluster, target, rng):
    on = [member for member in cluster.members if member.is_on]
    if not on:
        return None
    if target.startswith("#"):
        member = cluster.members[int(target[1:]) % len(cluster.members)]
        return member if member.is_on else None
    primary = published_primary(cluster)
    wanted = [member for member in on if target == "any" or (member.name == primary) == (target == "primary")]
    return rng.choice(wanted) if wanted else None


def strike(cluster, blows, rng):
    """Strikes and heals each at its time; returns those that struck."""
    begun, struck = time.monotonic(), []
    coming = sorted(blows, key=lambda blow: blow.at)
    healing = []
    while coming or healing:
        now = time.monotonic() - begun
        if coming and coming[0].at <= now:
            blow = coming.pop(0)
            blow.host = choose(cluster, blow.target, rng)
            blow.heal = FAULTS[blow.name](blow.host) if blow.host else None
            if blow.heal:
                blow.duty = ("primary" if published_primary(cluster) == blow.host.name
                             else "witness" if blow.host.port is None else "standby")
                struck.append(blow)
                healing.append((time.monotonic() - begun + blow.hold, blow))
        for moment, blow in [entry for entry in healing if entry[0] <= now]:
            healing.remove((moment, blow))
            blow.heal()
        time.sleep(0.005)
    return struck


class Soak:
    def __init__(self, seed, say):
        self.seed, self.say = seed, say
        self.faults = self.violations = 0
        self.cluster = None

    def violated(self, number, what):
        self.violations += 1
        self.say({"violation": what, "seed": self.seed, "round": number})
        logs = BUILD / "soak-logs" / f"{self.seed}-{number}"
        self.cluster.keep_logs(logs)
        (logs / "description").write_text(what + "\n\n" + self.cluster.describe(), encoding="utf-8")

    def report(self, number, situation, struck, healed, outage):
        for blow in struck:
            self.faults += 1
            self.say({"fault": blow.name, "host": blow.host.name, "duty": blow.duty, "during": situation,
                      "at": round(blow.at, 2), "hold": round(blow.hold, 2), "round": number,
                      "healed": round(healed, 2), "outage": round(outage, 2)})

    def heal(self):
        """Returns after how many seconds all was well."""
        moment = time.monotonic()
        self.cluster.wait_redundant(HEALED)
        return time.monotonic() - moment

    def found(self, number, rng):
        """A new cluster, with a fault while it is founded."""
        shape = dict(rng.choices([shape for shape, _ in SHAPES], [weight for _, weight in SHAPES])[0])
        self.say({"cluster": shape, "round": number})
        self.cluster = Hosts(shape.pop("data", 3), shape.pop("witness", False), **shape).start()
        time.sleep(rng.uniform(0, 6))
        _, blows = plan_round(rng)
        blows = [blow for blow in blows if blow.name != ALONE]
        struck = strike(self.cluster, blows, rng)
        healed = self.heal()
        self.cluster.begin_clients()
        self.report(number, "founding", struck, healed, 0)

    def round(self, number, rng):
        cluster, clients = self.cluster, self.cluster.clients
        situation, blows = plan_round(rng)
        begun = time.monotonic()
        under_way = SITUATIONS[situation](cluster, rng)
        struck = strike(cluster, blows, rng)
        under_way.end()
        healed = self.heal()
        cluster.wait_writes()
        if under_way.fault:
            cause = Blow(under_way.fault, "", 0, 0)
            cause.host, cause.duty = under_way.host, "cause" if under_way.came else "cause, moment missed"
            struck.append(cause)
        self.report(number, situation, struck, healed, clients.outage(begun))
        found = cluster.violations()
        assert not found, "; ".join(found)

    def machines(self):
        for name in machine.CHECKS:
            try:
                self.say({"fault": name, "seen": machine.check(name)})
                self.faults += 1
            except machine.Unbootable as error:
                self.say({"fault": name, "not tried": str(error)})
            except AssertionError as error:
                self.violations += 1
                self.say({"violation": f"{name}: {error}"})

    def go(self, first, minutes, rounds):
        deadline, number = time.monotonic() + 60 * minutes, first
        while time.monotonic() < deadline and (rounds is None or number < first + rounds):
            rng = random.Random(f"{self.seed}:{number}")
            try:
                if self.cluster is None or number % ROUNDS_A_CLUSTER == 0:
                    self.end()
                    self.found(number, rng)
                else:
                    self.round(number, rng)
            except Exception as error:  # whatever it is, the next cluster is a new one
                self.violated(number, str(error) if isinstance(error, AssertionError) else traceback.format_exc())
                self.end()
            number += 1

    def end(self):
        cluster, self.cluster = self.cluster, None
        if cluster is not None:
            cluster.close()


class Simulator:
    """The same core in a modelled cluster, on what time the hosts leave."""

    def __init__(self, minutes, seed):
        self.process = subprocess.Popen(
            ["nice", "-n", "19", BUILD / "tests" / "sim" / "sim", "--seconds", str(max(1, int(60 * minutes))), "--seed",
             str(seed), "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def result(self, is_cut_short):
        """What it printed, and whether that is a violation."""
        if is_cut_short:
            self.process.kill()
            self.process.communicate()
            return "the simulator was cut short", False
        text = self.process.communicate()[0].strip()
        return text, self.process.returncode != 0


def main():
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, default=None, help="which plan; by default a new one, which is said")
    parser.add_argument("--first", type=int, default=0, help="begin with this round of the plan")
    parser.add_argument("--rounds", type=int, default=None, help="end after so many")
    parser.add_argument("--no-simulator", action="store_true", help="real faults only")
    parser.add_argument("--no-machines", action="store_true", help="no machines: they take minutes, on top")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    soak = Soak(seed, lambda line: print(json.dumps(line), flush=True))
    print(json.dumps({"seed": seed}), flush=True)
    if not options.no_machines:
        soak.machines()
    simulator = None if options.no_simulator else Simulator(options.minutes, seed)
    is_cut_short = options.rounds is not None
    try:
        soak.go(options.first, options.minutes, options.rounds)
    except KeyboardInterrupt:
        is_cut_short = True
    finally:
        soak.end()
        if simulator:
            text, is_violation = simulator.result(is_cut_short)
            soak.violations += is_violation
            print(text, flush=True)
        print(f"{soak.faults} faults, {soak.violations} violations", flush=True)
    return 1 if soak.violations or not soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
