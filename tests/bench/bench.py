"""./dev bench: what ttorch costs, and how long it takes. docs/PERFORMANCE.md tells how to read it.

The verbs that need hosts of their own want root, and namespaces, which ./dev makes.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "faults"), str(HERE.parents[1] / "cluster")]

import commit  # noqa: E402
import cost  # noqa: E402
import failover  # noqa: E402
import idle  # noqa: E402
import lease  # noqa: E402
import publishing  # noqa: E402
import report  # noqa: E402
import serve  # noqa: E402
import simulate  # noqa: E402

PAGE = HERE.parents[2] / "docs/PERFORMANCE.md"


class Verb:
    """`rows` are its options: (name, its arguments for argparse)."""

    def __init__(self, name, help, run, *rows):
        self.name, self.help, self.run, self.rows = name, help, run, rows


ROUNDS = ("--rounds", {"type": int, "metavar": "N", "help": "how often each"})
LEASE = ("--lease", {"default": "2s", "help": "how long a primary may go on without a majority (2s)"})


def only(names, metavar):
    return "--only", {"action": "append", "choices": list(names), "metavar": metavar,
                      "help": f"one of {', '.join(names)}; may be given again"}


def seconds_of(default, what):
    return "--seconds", {"type": float, "default": default, "metavar": "N", "help": f"{what} ({default})"}


VERBS = [
    Verb("failover", "how long writes stop, event by event", failover.run_failover, ROUNDS, LEASE,
         only(failover.ROWS, "ROW")),
    Verb("switchover", "the write gap of planned switchovers, alone and beside pgbench", failover.run_switchover, ROUNDS,
         LEASE, ("--load", {"type": int, "nargs": "+", "default": [0, 8], "metavar": "CLIENTS",
                     "help": "of pgbench, 0 for none (0 8)"})),
    Verb("commit", "pgbench with ttorch and without, as ratios", commit.run_commit,
         ("--rounds", {"type": int, "default": 12, "metavar": "N", "help": "runs of each (12)"}),
         ("--seconds", {"type": int, "default": 10, "metavar": "N", "help": "of each run (10)"}),
         ("--durability", {"nargs": "+", "choices": list(commit.PAIRS), "default": list(commit.PAIRS),
                           "help": "of ttorch, each compared with plain streaming (quorum async)"})),
    Verb("idle", "processor, memory, disk, packets and system calls of idle members", idle.run_idle,
         ("--voters", {"type": int, "nargs": "+", "default": [3, 5, 7], "metavar": "N", "help": "members (3 5 7)"}),
         ("--observers", {"type": int, "default": 20, "metavar": "N",
                          "help": "without PostgreSQL, beside the first number of voters; 0 leaves that out (20)"}),
         seconds_of(15, "of measuring")),
    Verb("sim", "steps a second of the simulator", simulate.run_sim, seconds_of(5, "of each run"),
         ("--runs", {"type": int, "default": 5, "metavar": "N", "help": "with other seeds (5)"})),
    Verb("cost", "what the coordinator uses as the members grow in number", cost.run_cost,
         ("--members", {"type": int, "nargs": "+", "default": [3, 10, 30, 100], "metavar": "N",
                        "help": "how many (3 10 30 100)"}), seconds_of(15, "of measuring")),
    Verb("publish", "how soon each form names a new primary", publishing.run_publish,
         ("--rounds", {"type": int, "default": 6, "metavar": "N", "help": "changes of primary for each form (6)"}),
         only(publishing.FORMS, "FORM"), LEASE,
         ("--server", {"choices": list(publishing.SERVERS), "default": "knot",
                       "help": "the name server that takes updates: knot or bind (knot)"})),
    Verb("serve", "how many may ask one ttorchd, and what that does to its lease", serve.run_serve,
         seconds_of(10, "of each load"), LEASE,
         ("--watchers", {"type": int, "default": serve.WATCHERS, "metavar": "N",
                         "help": f"woken by one change ({serve.WATCHERS})"}),
         ("--rounds", {"type": int, "default": 3, "metavar": "N", "help": "changes that wake them (3)"})),
    Verb("lease", "how often a busy machine loses a lease without need", lease.run_lease,
         ("--leases", {"nargs": "+", "default": ["500ms", "750ms", "1s", "1500ms", "2s"], "metavar": "TIME",
                       "help": "which to try (500ms 750ms 1s 1500ms 2s)"}),
         ("--minutes", {"type": float, "default": 5, "metavar": "N", "help": "of load, each (5)"})),
]


def list_verbs():
    print("usage: ./dev bench VERB [OPTIONS]\n")
    for verb in VERBS:
        print(f"  {verb.name:<11} {verb.help}")
    print("  all         every verb, with its defaults\n"
          "  page FILE   the tables of docs/PERFORMANCE.md from what `all --json` or `VERB --json` printed\n\n"
          "Each takes --json, and says more with --help. docs/PERFORMANCE.md tells how to read what they print.")


def parse(verb, arguments):
    parser = argparse.ArgumentParser(prog=f"./dev bench {verb.name}", description=verb.help)
    for name, more in verb.rows:
        parser.add_argument(name, **more)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def run_one(verb, arguments):
    options = parse(verb, arguments)
    result = verb.run(options).as_dict()
    print(json.dumps(result) if options.json else report.as_table(result), flush=True)


def run_all(arguments):
    """Each verb in a process of its own, so that none disturbs the next."""
    parser = argparse.ArgumentParser(prog="./dev bench all")
    parser.add_argument("--json", action="store_true", help="print one JSON object: {verb: what it printed}")
    options = parser.parse_args(arguments)
    runs = {}
    for verb in VERBS:
        done = subprocess.run([sys.executable, HERE, verb.name, "--json"], stdout=subprocess.PIPE, check=False)
        if done.returncode != 0:
            print(f"bench: {verb.name} failed", file=sys.stderr)
            continue
        runs[verb.name] = json.loads(done.stdout)
        if not options.json:
            print(report.as_table(runs[verb.name]) + "\n", flush=True)
    if options.json:
        print(json.dumps(runs))
    return 0 if len(runs) == len(VERBS) else 1


def make_page(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench page", description="fills in the tables of docs/PERFORMANCE.md")
    parser.add_argument("file", type=pathlib.Path, nargs="+", help="what --json printed")
    parser.add_argument("--into", type=pathlib.Path, default=PAGE, help="another page")
    options = parser.parse_args(arguments)
    for file in options.file:
        runs = json.loads(file.read_text(encoding="utf-8"))
        report.fill_page(options.into, [runs] if "verb" in runs else list(runs.values()))


def main(arguments):
    if "TTORCH_ISOLATED" in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    name, rest = (arguments[0] if arguments else "help"), arguments[1:]
    if name in ("help", "--help", "-h"):
        list_verbs()
        return 0
    if name == "all":
        return run_all(rest)
    if name == "page":
        return make_page(rest)
    verb = next((verb for verb in VERBS if verb.name == name), None)
    if verb is None:
        list_verbs()
        print(f"\nbench: there is no verb {name}", file=sys.stderr)
        return 2
    return run_one(verb, rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
