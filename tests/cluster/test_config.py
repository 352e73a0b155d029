"""ttorchd --check, and changes at run time."""
import re
import signal
import subprocess

from cluster import as_user


def check(cluster, file):
    return subprocess.run(as_user([cluster.program("ttorchd"), "--check", "--config", file]), check=False, text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=20)


def test_a_good_file_passes(make_cluster):
    cluster = make_cluster(3)
    for member in cluster.members:
        done = check(cluster, member.config)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_mistake_is_reported_with_its_place(make_cluster):
    cluster = make_cluster(3)
    file = cluster.directory / "wrong.yaml"
    text = cluster["m1"].config.read_text(encoding="utf-8")
    text = text.replace("lease: 2s", "lease: 100ms").replace("durability:", "durabillity:")
    text = text.replace("member: m1\n", "member: m9\n", 1)
    text = re.sub(r"(  m3:\n    peer: )\S+", r"\1nowhere", text)
    file.write_text(text + "probe: {interval: often}\n", encoding="utf-8")
    file.chmod(0o644)

    def line_of(start):
        return next(number for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
                    if line.strip().startswith(start))

    done = check(cluster, file)
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode != 0
    expected = {
        "lease: 100ms": "lease",
        "durabillity": "durability",  # the nearest known one
        "member: m9": "m9",
        "peer: nowhere": "nowhere",
        "probe": "often",
    }
    for start, word in expected.items():
        place = re.compile(rf"wrong\.yaml:{line_of(start)}:\d+: .*{word}")
        assert any(place.search(line) for line in said), f"no complaint {place.pattern} in\n" + "\n".join(said)
    assert len([line for line in said if re.search(r"wrong\.yaml:\d+:\d+: ", line)]) >= len(expected)


def test_a_file_that_is_not_there(make_cluster):
    cluster = make_cluster(1)
    done = check(cluster, cluster.directory / "absent.yaml")
    assert done.returncode != 0 and "absent.yaml" in done.stdout + done.stderr


def test_the_daemon_refuses_a_wrong_file(make_cluster):
    cluster = make_cluster(1)
    cluster["m1"].config.write_text("cluster: [\n", encoding="utf-8")
    cluster["m1"].start()
    assert cluster["m1"].wait_exit(10) != 0
    assert re.search(r"m1\.yaml:\d+:\d+: ", cluster["m1"].log())


def test_reload_changes_a_parameter(trio):
    """SIGHUP: parameters reach PostgreSQL without a restart; a mistake changes nothing."""
    before = [member.postmaster() for member in trio.members]
    for member in trio.members:
        member.write_config(postgresql={"parameters": {"work_mem": "11MB"}, "standby_parameters": {"work_mem": "12MB"}})
        member.signal(signal.SIGHUP)
    primary = trio.primary()
    for member in trio.members:
        wanted = "11MB" if member is primary else "12MB"
        trio.wait(lambda m=member, w=wanted: m.query("SHOW work_mem") == w, 10, f"work_mem of {member} is {wanted}")

    primary.config.write_text("lease: nonsense\n", encoding="utf-8")
    primary.signal(signal.SIGHUP)
    trio.wait(lambda: re.search(rf"{primary}\.yaml:\d+:\d+: ", primary.log()), 10, "the mistake is in the log")
    assert primary.runs() and primary.query("SHOW work_mem") == "11MB"

    for member in trio.members:
        member.write_config()
        member.signal(signal.SIGHUP)
    trio.wait(lambda: all(m.query("SHOW work_mem") == "4MB" for m in trio.members), 10, "work_mem is the default again")
    assert before == [member.postmaster() for member in trio.members]
