"""What ttorch costs a commit: pgbench on its cluster, and on one of the same PostgreSQL and settings without it.

All clusters stand on the same disk and are up all the time; only one is under load. The runs take turns, so that what
else the machine does strikes all of them alike, and each round is a comparison of its own.
"""
import contextlib
import random
import shutil
import statistics
import subprocess
import tempfile
import pathlib

import psycopg2

from cluster import Cluster, as_user, free_ports, give, postgres_programs
from failover import say
from load import pgbench, prepare_tables
from report import Report, quantile

CLIENTS, SCALE = 8, 3
# What a member sets for itself, or what differs by duty: the rest is taken over by the plain cluster.
OWN = {"synchronous_standby_names", "primary_conninfo", "primary_slot_name", "restore_command", "port", "data_directory",
       "hba_file", "ident_file", "config_file", "unix_socket_directories", "listen_addresses", "cluster_name",
       "log_directory", "log_filename", "logging_collector", "external_pid_file"}
COLUMNS = [("what", ""), ("tps", "transactions/s"), ("p50", "half within, ms"), ("p99", "99 % within, ms"),
           ("partner", "compared with"), ("ratio", "ratio"), ("low", "from"), ("high", "to"), ("runs", "runs")]


class Plain:
    """A primary and two standbys that stream, without anybody to look after them."""

    def __init__(self, model):
        """`model` is a server of which the settings are taken over."""
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="tt-plain-", dir="/tmp"))
        give(self.directory)
        self.ports = free_ports(3)
        self.programs = postgres_programs()
        self._settings = self._settings_of(model)

    def start(self):
        self._initdb()
        self._start(0)
        for number in (1, 2):
            self._run("pg_basebackup", "-D", self._data(number), "-R", "-X", "stream", "-c", "fast", "-d", self.conninfo())
            with (self._data(number) / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
                file.write(f"primary_conninfo = '{self.conninfo()} application_name=s{number}'\n")
            self._start(number)
        return self

    def _data(self, number):
        return self.directory / f"data{number}"

    def _run(self, program, *words):
        subprocess.run(as_user([self.programs / program, *words]), check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.directory)

    @staticmethod
    def _settings_of(model):
        connection = model.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT name, current_setting(name) FROM pg_settings "
                               "WHERE source IN ('configuration file', 'command line')")
                return {name: value for name, value in cursor.fetchall() if name not in OWN}
        finally:
            connection.close()

    def _initdb(self):
        self._run("initdb", "-D", self._data(0), "-A", "trust", "-N", "-U", "postgres", "--locale=C.UTF-8", "-k")
        with (self._data(0) / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"listen_addresses = '127.0.0.1'\nunix_socket_directories = '{self.directory}'\n")
            for name, value in self._settings.items():
                file.write("{} = '{}'\n".format(name, str(value).replace("'", "''")))

    def _start(self, number):
        self._run("pg_ctl", "-D", self._data(number), "-w", "-o", f"-p {self.ports[number]}", "-l",
                  self.directory / f"log{number}", "start")

    def connect(self):
        connection = psycopg2.connect(self.conninfo())
        connection.autocommit = True
        return connection

    def conninfo(self):
        return f"host=127.0.0.1 port={self.ports[0]} user=postgres dbname=postgres"

    def set_synchronous(self, names):
        connection = self.connect()
        with connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET synchronous_standby_names = %s", (names,))
            cursor.execute("SELECT pg_reload_conf()")
        connection.close()

    def close(self):
        for number in range(3):
            with contextlib.suppress(subprocess.CalledProcessError):
                self._run("pg_ctl", "-D", self._data(number), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.directory)


def streams(cluster):
    """In async no rule counts the standbys, so `is_redundant` does not say it."""
    status = cluster.status()
    return status and status["open"] and sum(row["state"] == "streaming" for row in status["members"]) == 2


class Variant:
    """`server()` is who is under load, after `prepare()`."""

    def __init__(self, name, title, server, prepare=lambda: None):
        self.name, self.title, self.server, self.prepare = name, title, server, prepare
        self.runs = []


def run_once(variant, seconds):
    """{"tps", "p50", "p99"} of one run."""
    variant.prepare()
    with tempfile.TemporaryDirectory() as directory:
        process = pgbench(variant.server(), "-n", "-N", "-c", CLIENTS, "-T", seconds, "-l", "--random-seed=1", cwd=directory,
                          stdout=subprocess.PIPE)
        printed = process.communicate()[0]
        latencies = [int(line.split()[2]) / 1000 for log in pathlib.Path(directory).glob("pgbench_log.*")
                     for line in log.read_text(encoding="utf-8").splitlines()]
    tps = next(float(line.split()[2]) for line in printed.splitlines() if line.startswith("tps"))
    return {"tps": tps, "p50": quantile(latencies, 0.5), "p99": quantile(latencies, 0.99)}


def interval(ratios):
    """Where the median of the ratios lies, with 90 % certainty: of many samples of them, drawn with replacement."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[100], medians[-101]


def add_variant(report, variant, partner):
    row = {key: statistics.median(run[key] for run in variant.runs) for key in ("tps", "p50", "p99")}
    if partner is not None:
        ratios = [mine["tps"] / theirs["tps"] for mine, theirs in zip(variant.runs, partner.runs)]
        row["low"], row["high"] = (round(bound, 3) for bound in interval(ratios))
        row.update(partner=partner.title, ratio=f"{statistics.median(ratios):.3f}",
                   low=f"{row['low']:.3f}", high=f"{row['high']:.3f}", ratios=sorted(round(ratio, 3) for ratio in ratios))
    report.add(what=variant.title, runs=len(variant.runs), each=variant.runs, **row)


# ttorch's durability, and what plain streaming waits for in comparison.
PAIRS = {"quorum": ("ANY 1 (s1, s2)", "plain streaming, ANY 1 (s1, s2)"), "async": ("", "plain streaming, asynchronous")}


def start_cluster(stack, durability):
    cluster = Cluster(3, durability=durability)
    stack.callback(cluster.close)
    cluster.start().wait(lambda: streams(cluster), 60, "every standby streams")
    return cluster


def make_variants(stack, durabilities):
    """[(ttorch's, the plain one)]"""
    clusters = {durability: start_cluster(stack, durability) for durability in durabilities}
    plain = Plain(next(iter(clusters.values())).primary())
    stack.callback(plain.close)
    plain.start()
    pairs = []
    for durability, cluster in clusters.items():
        names, title = PAIRS[durability]
        pairs.append((Variant(durability, f"ttorch, {durability}", lambda cluster=cluster: cluster.primary()),
                      Variant(f"plain {names}".strip(), title, lambda: plain,
                              lambda names=names: plain.set_synchronous(names))))
        prepare_tables(pairs[-1][0].server(), SCALE)
    prepare_tables(plain, SCALE)
    return pairs


def run_commit(options):
    report = Report("commit", f"pgbench -N -c {CLIENTS}, scale {SCALE}, by what a commit waits for", COLUMNS,
                    seconds=options.seconds, rounds=options.rounds)
    with contextlib.ExitStack() as stack:
        pairs = make_variants(stack, options.durability)
        variants = [variant for pair in pairs for variant in pair]
        for variant in variants:
            run_once(variant, max(options.seconds // 4, 1))  # warm
        for number in range(options.rounds):
            for variant in variants if number % 2 == 0 else variants[::-1]:
                variant.runs.append(run_once(variant, options.seconds))
            figures = ", ".join(f"{each.name} {each.runs[-1]['tps']:.0f}" for each in variants)
            say(f"commit {number + 1}/{options.rounds}: {figures}")
    for ours, theirs in pairs:
        add_variant(report, ours, theirs)
        add_variant(report, theirs, None)
    report.notes.append("A ratio is of two runs in turn; the median of them lies between `from` and `to` with 90 % certainty.")
    if len(pairs) == 2:
        ratios = [one["tps"] / none["tps"] for one, none in zip(pairs[0][1].runs, pairs[1][1].runs)]
        report.notes.append(f"To wait for a standby costs {100 * (1 - statistics.median(ratios)):.0f} %, without ttorch.")
    return report
