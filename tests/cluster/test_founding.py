"""From members' files to a running cluster."""
import shutil

import pytest

import byhand
from cluster import give


@pytest.mark.parametrize("order", [("m1", "m2", "m3"), ("m3", "m1", "m2"), ("m2", "m3", "m1")], ids="-".join)
def test_founds_in_any_order(make_cluster, order):
    cluster = make_cluster(3)
    for name in order:
        cluster[name].start()
        cluster.wait(cluster[name].status, 10, f"{name} answers")
    cluster.wait_redundant(60)
    ids = {member.status()["cluster_id"] for member in cluster.members}
    assert len(ids) == 1
    assert cluster.epoch() == 1
    cluster.primary().query("CREATE TABLE works (); COMMENT ON TABLE works IS 'yes'")


def test_does_not_found_alone(make_cluster):
    """One of three is no majority, and says for what it waits."""
    cluster = make_cluster(3)
    cluster["m1"].start()
    waiting = cluster.wait(lambda: (status := cluster["m1"].status()) and status["waiting"], 10, "m1 says that it waits")
    assert "m2" in waiting or "m3" in waiting
    assert cluster["m1"].status()["epoch"] == 0
    assert not cluster["m1"].pgdata.exists() or not (cluster["m1"].pgdata / "PG_VERSION").exists()


def test_a_file_that_differs_is_refused(make_cluster):
    """The complaint names the setting, the line, and both members; with the line mended the cluster is founded."""
    cluster = make_cluster(3)
    cluster["m2"].write_config(lease="3s")
    lines = cluster["m2"].config.read_text(encoding="utf-8").splitlines()
    line = next(number for number, text in enumerate(lines, 1) if text.startswith("lease:"))
    cluster.start()

    def complaint():
        for member in cluster.members:
            status = member.status()
            for text in [status["waiting"] if status else "", *member.log().splitlines()]:
                if "lease" in text and f"m2.yaml:{line}" in text and ("m1" in text or "m3" in text):
                    return text
        return None

    cluster.wait(complaint, 20, f"somebody says that the lease of m2.yaml:{line} differs from another member's")
    assert not any((cluster[name].pgdata / "PG_VERSION").exists() for name in ("m1", "m2", "m3"))

    cluster["m2"].write_config()
    if cluster["m2"].runs():
        cluster["m2"].stop()
    for member in cluster.members:
        if not member.runs():
            member.start()
    cluster.wait_redundant(60)


def test_adopts_a_data_directory(make_cluster):
    """A server that somebody has made by hand becomes the first primary, with its rows and its own settings."""
    cluster = make_cluster(3)
    member = cluster["m2"]
    byhand.make(member, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number",
                settings="work_mem = '7MB' # kept\n", hba="host all kept 192.0.2.0/24 reject\n")

    cluster.found()
    assert cluster.primary() is member
    for each in cluster.members:
        assert each.query("SELECT count(*) FROM kept") == 1000
    assert member.query("SHOW work_mem") == "7MB"
    assert "host all kept 192.0.2.0/24 reject" in (member.pgdata / "pg_hba.conf").read_text(encoding="utf-8")


def test_files_of_debian(make_cluster):
    """Its packages keep the settings in /etc. A member does not guess which; copied into the data directory they are taken
    over, with the paths that they name."""
    cluster = make_cluster(3)
    member = cluster["m1"]
    byhand.make(member, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number")
    elsewhere = member.directory / "etc"
    (elsewhere / "conf.d").mkdir(parents=True)
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        (member.pgdata / name).rename(elsewhere / name)
    with (elsewhere / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(f"data_directory = '{member.pgdata}'\nhba_file = '{elsewhere}/pg_hba.conf'\n"
                   f"ident_file = '{elsewhere}/pg_ident.conf'\ninclude_dir = 'conf.d'\nwork_mem = '7MB'\n")
    cluster.start()
    cluster.wait(lambda: (row := cluster.row(member)) and "postgresql.conf" in row["trouble"], 30,
                 f"{member} says which files it misses")
    shutil.copytree(elsewhere, member.pgdata, dirs_exist_ok=True)
    member.pgdata.chmod(0o700)
    for path in member.pgdata.iterdir():
        give(path)
    cluster.wait_redundant(60)
    assert cluster.primary() is member
    for each in cluster.members:
        assert each.query("SELECT count(*) FROM kept") == 1000
        assert each.query("SHOW hba_file") == f"{each.pgdata}/pg_hba.conf"
        assert each.query("SHOW work_mem") == "7MB"
    shutil.rmtree(elsewhere)
    member.kill_postgres()
    cluster.wait_new_primary(member)
    cluster.wait_redundant(60)


def test_two_data_directories(make_cluster):
    """Nobody knows which of them is the one that is wanted: both are named, and left alone."""
    cluster = make_cluster(3)
    for name in ("m1", "m3"):
        byhand.make(cluster[name], f"CREATE TABLE of_{name} ()")
    cluster.start()

    def says_both():
        said = [member.ttorch("status", check=False) for member in cluster.members]
        return any("both m1 and m3 hold a data directory" in done.stdout for done in said)

    cluster.wait(says_both, 30, "somebody names both")
    assert cluster["m1"].status()["epoch"] == 0
    cluster["m1"].pgdata.rename(cluster["m1"].directory / "away")
    cluster.wait_redundant(60)
    assert cluster.primary() is cluster["m3"]
    assert cluster["m1"].query("SELECT to_regclass('of_m3')") == "of_m3"


def test_two_members_and_a_witness(make_cluster):
    """The witness's vote is enough to fail over with one data member left; it holds no data."""
    cluster = make_cluster(2, witness=True).found()
    ledger = cluster.ledger()
    old = cluster.primary()
    old.kill_everything()
    new = cluster.wait_new_primary(old)
    cluster.check_ledger(ledger)
    assert cluster.status()["degraded"], "nobody is left to acknowledge"
    old.start()
    cluster.wait_redundant()
    assert cluster.primary() is new
    cluster.check_ledger(ledger)
    assert not list(cluster["m3"].directory.rglob("PG_VERSION"))
