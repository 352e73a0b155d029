"""Every command of the README's tour works, in its order."""
import pathlib
import re
import subprocess
import tempfile

import pytest
import yaml

import processes
from cluster import BUILD, SOURCE
from test_config import check

README = (SOURCE / "README.md").read_text(encoding="utf-8")


def tour():
    """The commands of the section: lines after a $ in its console blocks."""
    section = README.split("\n## Five minutes\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.limit(180)
def test_tour():
    assert len(tour()) > 8
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tour-", dir="/tmp"))
    directory.rmdir()  # the demo makes it
    script = "\n".join(["set -euo pipefail", *(f"echo '#### {number}'\n{command}" for number, command in enumerate(tour()))])
    script = script.replace("/tmp/tour", str(directory)).replace("$PWD/build/cli", str(BUILD / "cli"))
    try:
        done = subprocess.run(["timeout", "-k", "5", "500", "/bin/bash", "-c", script], cwd=SOURCE,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        said = done.stdout.split("#### ")
        assert done.returncode == 0, f"{tour()[len(said) - 2]}\n{said[-1]}\n{done.stderr}"
        assert not directory.exists() and not processes.all_in(directory), "nothing is left of the demo"
    finally:
        processes.kill_all_in(directory)
        subprocess.run(["rm", "-rf", directory], check=True)


def test_example_file(make_cluster):
    """The README's file is right, but for the password file, which is not on this machine."""
    cluster = make_cluster(1)
    example = re.search(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1]
    assert len(example.splitlines()) < 25
    settings = yaml.safe_load(example)
    settings["replication"]["password_file"] = str(cluster.directory / "password")
    file = cluster.directory / "example.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    file.chmod(0o644)
    done = check(cluster, file)
    assert done.returncode == 0, done.stdout + done.stderr
