"""What the coordinator uses as the members grow in number: real daemons, on loopback, that have nothing to do.

Two have a PostgreSQL, and the others are witnesses: for the coordinator a witness is as much as any other member (it
votes, hears of every entry of the record, tells what it sees several times a second, and endorses the lease). The
program's limit is MEMBERS_MAX of base/limits.h; what lies beyond it is a line through what was measured.
"""
import re
import time

from cluster import SOURCE, Cluster
from failover import say
from report import Report
from usage import Traffic, Usage, memory_mb

BUDGET = 10  # per cent of a core, at 100 members
PROJECTED = (30, 100)
COLUMNS = [("members", "members"), ("cpu", "coordinator, % of a core"), ("bytes", "bytes/s"), ("packets", "packets/s"),
           ("switches", "wake-ups/s"), ("memory", "MB resident"), ("primary", "primary, % of a core"),
           ("other", "others, % of a core"), ("how", "")]


def members_max():
    limits = (SOURCE / "base/limits.h").read_text(encoding="utf-8")
    return int(re.search(r"^#define MEMBERS_MAX\s+(\d+)", limits, re.MULTILINE)[1])


def settle(cluster):
    """Returns the coordinator: the primary gives the Raft leadership away."""
    cluster.wait_redundant(90)

    def leader():
        status = cluster.status()
        return status and status["leader"] and status["leader"] != status["primary"] and cluster[status["leader"]]
    return cluster.wait(leader, 60, "the coordinator is not the primary")


def measure(members, seconds):
    cluster = Cluster(2, witness=members - 2)
    try:
        cluster.start()
        coordinator = settle(cluster)
        time.sleep(min(seconds, 3))  # what founding has left to do
        primary, pid = cluster.primary(), coordinator.daemon.pid
        others = [member for member in cluster.members if member not in (primary, coordinator)]

        def sample():
            return [Usage([pid]), Traffic(pid), Usage([primary.daemon.pid]), Usage([each.daemon.pid for each in others])]
        before = sample()
        time.sleep(seconds)  # the time that is measured
        (cpu, switches), (packets, size), (first, _), (rest, _) = (now.since(then) for now, then in zip(sample(), before))
        return {"members": members, "cpu": cpu, "switches": switches, "packets": packets, "bytes": size,
                "memory": memory_mb([pid]), "primary": first, "other": rest / len(others), "how": "measured"}
    finally:
        cluster.close()


def line_through(points):
    """Least squares: (at 0, for each)."""
    n, sx, sy = len(points), sum(x for x, _ in points), sum(y for _, y in points)
    sxx, sxy = sum(x * x for x, _ in points), sum(x * y for x, y in points)
    each = (n * sxy - sx * sy) / (n * sxx - sx * sx)
    return (sy - each * sx) / n, each


def project(report, members):
    row = {"members": members, "how": "projected"}
    for key in ("cpu", "bytes", "packets", "switches"):
        base, each = line_through([(row["members"], row[key]) for row in report.rows if row["how"] == "measured"])
        row[key] = base + each * members
    return row


def run_cost(options):
    limit = members_max()
    report = Report("cost", "What the coordinator uses, by the number of members", COLUMNS, seconds=options.seconds)
    for members in options.members:
        report.add(**measure(min(members, limit), options.seconds))
        say(f"cost {members}: {report.rows[-1]['cpu']:.2f} %")
    if len(report.rows) > 1:
        base, each = line_through([(row["members"], row["cpu"]) for row in report.rows])
        for row in [project(report, members) for members in PROJECTED]:
            report.add(**row)
        report.notes.append(f"{base:.2f} % of a core, and {each:.3f} % for each member: "
                            f"{base + 100 * each:.1f} % at 100 (budget {BUDGET} %).")
    report.notes.append(f"A cluster has at most {limit} members (MEMBERS_MAX), and each of them votes: a file with more is "
                        "refused. Every member is connected to every other one, and record and core have a fixed place for each.")
    return report
