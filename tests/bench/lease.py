"""The smallest lease that a busy machine keeps: how often a primary that is well loses it.

All members, pgbench and a program that writes and syncs all the time share this machine and its disk: worse than what
hosts of their own see, so a lease that holds here is a safe one.
"""
import contextlib
import http.client
import re
import subprocess
import threading
import time

import api
from cluster import Cluster, as_user
from failover import lease_ms, say
from load import Load
from report import Report, quantile

CLIENTS = 8
MARGIN_MS, MARGIN_PART = 60, 1 / 50  # what the lease is shorter for its holder (docs/ARCHITECTURE.md, lease.c)
RENEWALS = 10  # in each lease
COLUMNS = [("lease", "lease"), ("minutes", "minutes"), ("failovers", "false failovers"), ("per_hour", "an hour"),
           ("left", "left, ms: half below"), ("left_low", "1 % below"), ("left_least", "least"),
           ("stall", "longest stall, ms"), ("tolerated", "tolerated, ms"), ("outage", "a dead host costs, ms"),
           ("tps", "transactions/s")]


class Left:
    """Asks the primary's daemon for what is left of its lease, all the time."""

    def __init__(self, cluster):
        self.cluster, self.samples, self.reasons = cluster, [], []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        primary = None
        while not self._stop.wait(0.05):
            primary = primary or self.cluster.primary()
            try:
                text = api.get_text(primary.socket, "/metrics")[1] if primary else ""
            except (OSError, http.client.HTTPException):
                continue
            left = re.search(r"^ttorch_lease_left_seconds(?:\{.*\})? ([-\d.e]+)$", text, re.MULTILINE)
            if left is None or float(left[1]) <= 0:
                primary = None  # another one has it, or nobody
            else:
                self.samples.append(float(left[1]) * 1000)


@contextlib.contextmanager
def syncing(directory):
    """16 MB written and synced, again and again."""
    script = "while dd if=/dev/zero of=ballast bs=1M count=16 conv=fsync; do :; done"
    process = subprocess.Popen(as_user(["sh", "-c", script]), cwd=directory, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        subprocess.run(["kill", "-KILL", "--", f"-{process.pid}"], check=False)
        process.wait()


def measure(report, lease, minutes):
    cluster = Cluster(3, lease=lease)
    try:
        cluster.found()
        epoch, milliseconds = cluster.epoch(), lease_ms(lease)
        with syncing(cluster.directory), Load(cluster, CLIENTS) as load, Left(cluster) as left:
            began = time.monotonic()
            threading.Event().wait(minutes * 60)  # the time that is measured
            seconds = time.monotonic() - began
        cluster.wait_redundant(90)
        history = cluster.members[0].get("/v1/history")["history"]
        failovers = cluster.epoch() - epoch
        usable = milliseconds - milliseconds * MARGIN_PART - MARGIN_MS
        least = min(left.samples, default=None)
        report.add(lease=lease, minutes=minutes, failovers=failovers, per_hour=failovers * 3600 / seconds,
                   left=quantile(left.samples, 0.5), left_low=quantile(left.samples, 0.01), left_least=least,
                   stall=usable - least if least is not None else None, tolerated=usable - milliseconds / RENEWALS,
                   outage=milliseconds + 250, tps=load.transactions / seconds,
                   reasons=[entry["reason"] for entry in history if entry["kind"] == "sealed"])
        say(f"lease {lease}: {failovers} failovers")
    except AssertionError as error:
        say(f"lease {lease}: {error}")
        report.notes.append(f"{lease}: ended early: {str(error).splitlines()[0]}")
    finally:
        cluster.close()


def run_lease(options):
    report = Report("lease", f"Failovers without a fault, under pgbench -c {CLIENTS} and a disk that is always syncing",
                    COLUMNS, minutes=options.minutes)
    for lease in options.leases:
        measure(report, lease, options.minutes)
    for row in report.rows:
        for reason in sorted(set(row["reasons"])):
            report.notes.append(f"{row['lease']}: {row['reasons'].count(reason)} x {reason}")
    report.notes.append("Left is what the primary has of its lease whenever it is asked; a stall longer than the tolerated "
                        "one ends its tenure.")
    return report
