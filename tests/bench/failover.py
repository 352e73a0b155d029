"""Outages by kind of fault, as a client sees them: medians over many rounds of `ttorch demo`."""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

TTORCH = pathlib.Path(__file__).resolve().parents[2] / "build/cli/ttorch"
FAULTS = ("kill", "host", "freeze", "daemon", "switchover")


def run(fault, rounds, lease):
    done = subprocess.run([TTORCH, "demo", "--json", "--fault", fault, "--rounds", str(rounds), "--lease", lease],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=120 + 60 * rounds, check=False)
    if done.returncode not in (0, 1) or not done.stdout.startswith("{"):
        sys.exit(f"bench: ttorch demo --fault {fault}: exit {done.returncode}")
    return json.loads(done.stdout)["rounds"]


def main():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of each fault (10)")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only this one; may be given again")
    parser.add_argument("--lease", default="2s", help="how long a primary may go on without a majority (2s)")
    options = parser.parse_args()
    lost = 0
    print(f"{'fault':<12}{'rounds':>7}{'outage, ms: median':>20}{'worst':>7}{'redundant, ms: median':>23}{'lost':>6}")
    for fault in options.fault or FAULTS:
        rounds = run(fault, options.rounds, options.lease)
        outages = [each["outage_ms"] for each in rounds]
        redundant = [each["redundant_ms"] for each in rounds]
        lost += sum(each["lost"] for each in rounds)
        short = len(rounds) < options.rounds
        print(f"{fault:<12}{len(rounds):>7}{statistics.median(outages) if rounds else float('nan'):>20.0f}"
              f"{max(outages, default=float('nan')):>7.0f}{statistics.median(redundant) if rounds else float('nan'):>23.0f}"
              f"{sum(each['lost'] for each in rounds):>6}{'  ended early' if short else ''}", flush=True)
        lost += short
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
