"""How fast the simulator is: one process, one core."""
import json
import subprocess

from cluster import BUILD
from report import Report, spread

COLUMNS = [("what", ""), ("median", "median"), ("least", "least"), ("most", "most")]


def run_sim(options):
    report = Report("sim", "The simulator on one core", COLUMNS, seconds=options.seconds, runs=options.runs)
    runs = []
    for seed in range(options.runs):
        done = subprocess.run([BUILD / "tests/sim/sim", "--seconds", f"{max(round(options.seconds), 1)}", "--seed",
                               str(100_000 * seed + 1), "--json"], stdout=subprocess.PIPE, check=True)
        runs.append(json.loads(done.stdout))
    seconds = [run["steps"] / run["steps_per_s"] for run in runs]
    for what, values in (("steps a second", [run["steps_per_s"] for run in runs]),
                         ("failovers a minute", [60 * run["failovers"] / took for run, took in zip(runs, seconds)])):
        median, least, most = spread(values)
        report.add(what=what, median=round(median), least=round(least), most=round(most))
    report.add(what="violations", median=sum(run["violations"] for run in runs))
    return report
