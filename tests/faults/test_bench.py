"""Every verb of `./dev bench` still measures: one tiny round of each. What they find is for `./dev bench` itself, so they
may disturb each other, and run several at once."""
import concurrent.futures
import json
import os
import re
import subprocess
import sys

import pytest

from cluster import SOURCE

BENCH = SOURCE / "tests/bench/bench.py"
PAGE = SOURCE / "docs/PERFORMANCE.md"
# As ./dev does; the network and the mounts of the other tests here are in use.
ISOLATED = ["unshare", "--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"]

# What is asked for, and keys that every row of the answer must have a value for.
TINY = {
    "failover": (["--only", "killed", "--rounds", "1"], ["median", "worst", "budget", "verdict"]),
    "switchover": (["--rounds", "1", "--load", "2"], ["median", "verdict", "load"]),
    "commit": (["--rounds", "1", "--seconds", "1", "--durability", "quorum"], ["tps", "p50", "p99"]),
    "idle": (["--voters", "3", "--seconds", "1"], ["cpu", "memory", "disk", "packets", "switches"]),
    "sim": (["--seconds", "1", "--runs", "1"], ["median"]),
    "cost": (["--members", "3", "--seconds", "1"], ["cpu", "bytes", "packets", "switches", "memory"]),
    "publish": (["--rounds", "1", "--only", "http", "--only", "dns", "--only", "update"], ["median", "budget", "verdict"]),
    "serve": (["--seconds", "0.5", "--rounds", "1", "--watchers", "50"], ["rate", "cpu", "late", "wake", "left", "verdict"]),
    "lease": (["--leases", "1s", "--minutes", "0.02"], ["failovers", "per_hour", "tolerated", "left_least"]),
}


def bench(*words, isolated=True):
    return subprocess.run([*(ISOLATED if isolated else []), sys.executable, BENCH, *words], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, env=dict(os.environ))


@pytest.fixture(scope="module")
def runs():
    """What each verb printed, or will."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=3) as executor:
        yield {verb: executor.submit(bench, verb, "--json", *words) for verb, (words, _) in TINY.items()}


def test_verbs_are_listed():
    """So that one that is added is tried here, too."""
    listed = bench(isolated=False).stdout
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ")]
    assert names == [*TINY, "all", "page"]
    assert bench("nothing", isolated=False).returncode == 2


def test_commands_of_the_page():
    """They are understood; that the verbs work is seen below."""
    commands = re.findall(r"^\./dev bench (.*?)(?: >.*)?$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        done = bench(*command.split(), "--help", isolated=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.mark.limit(180)
@pytest.mark.parametrize("verb", TINY)
def test_tiny_round(runs, verb, tmp_path):
    """Its JSON is whole, and makes the page's table."""
    done, keys = runs[verb].result(), TINY[verb][1]
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["verb"] == verb and run["rows"], done.stdout
    assert not [text for text in run["notes"] if "VIOLATION" in text or "ended early" in text]
    for key in keys:
        assert any(row.get(key) is not None for row in run["rows"]), f"{key} is nowhere in {run['rows']}"
    page, result = tmp_path / "page.md", tmp_path / "run.json"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    result.write_text(done.stdout, encoding="utf-8")
    assert bench("page", str(result), "--into", str(page), isolated=False).returncode == 0
    assert f"*{run['when']}" in page.read_text(encoding="utf-8")
