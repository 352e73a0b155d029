"""What the coordinator uses as the members grow in number: real daemons, on loopback, that have nothing to do.

Three vote, two of them with a PostgreSQL; all others are observers without one, which take the record from a voter each,
and tell every voter once a second how they do. Nothing is projected: there are as many processes as members.
"""
import time

from cluster import Cluster
from failover import say
from report import Report
from usage import Traffic, Usage, memory_mb

BUDGET = 10  # per cent of a core, at 100 members
VOTERS = 3
COLUMNS = [("members", "members"), ("cpu", "coordinator, % of a core"), ("bytes", "bytes/s"), ("packets", "packets/s"),
           ("switches", "wake-ups/s"), ("memory", "MB resident"), ("primary", "primary, % of a core"),
           ("other", "an observer, % of a core"), ("other_memory", "its MB resident")]


def settle(cluster):
    """Returns the coordinator, which hears of every member; the primary gives the Raft leadership away."""
    def settled():
        statuses = [member.status() for member in cluster.voters]
        leader = statuses[0] and statuses[0]["leader"]
        calm = all(cluster.says_redundant(status) for status in statuses)
        return calm and leader and leader != statuses[0]["primary"] and cluster[leader]
    return cluster.wait(settled, 180, "all members are heard, and the coordinator is not the primary")


def average(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def measure(members, seconds):
    cluster = Cluster(2, witness=1, observers=members - VOTERS)
    try:
        cluster.start()
        coordinator = settle(cluster)
        time.sleep(min(seconds, 3))  # what founding has left to do
        primary, pid = cluster.primary(), coordinator.daemon.pid
        others = [member.daemon.pid for member in cluster.members if member.observer]

        def sample():
            return [Usage([pid]), Traffic(pid), Usage([primary.daemon.pid]), Usage(others)]
        before = sample()
        time.sleep(seconds)  # the time that is measured
        (cpu, switches), (packets, size), (first, _), (rest, _) = (now.since(then) for now, then in zip(sample(), before))
        assert cluster.says_redundant(coordinator.status()), "it was not quiet"
        return {"members": members, "cpu": cpu, "switches": switches, "packets": packets, "bytes": size,
                "memory": memory_mb([pid]), "primary": first, "other": rest / len(others) if others else None,
                "other_memory": average(memory_mb([other]) for other in others)}
    finally:
        cluster.close()


def line_through(points):
    """Least squares: (at 0, for each)."""
    n, sx, sy = len(points), sum(x for x, _ in points), sum(y for _, y in points)
    sxx, sxy = sum(x * x for x, _ in points), sum(x * y for x, y in points)
    each = (n * sxy - sx * sy) / (n * sxx - sx * sx)
    return (sy - each * sx) / n, each


def run_cost(options):
    report = Report("cost", "What the coordinator uses, by the number of members", COLUMNS, seconds=options.seconds)
    for members in options.members:
        report.add(**measure(max(members, VOTERS), options.seconds))
        say(f"cost {members}: {report.rows[-1]['cpu']:.2f} %")
    if len({row["members"] for row in report.rows}) > 1:
        base, each = line_through([(row["members"], row["cpu"]) for row in report.rows])
        report.notes.append(f"A line through them: {base:.2f} % of a core, and {each:.3f} % for each member "
                            f"(budget: {BUDGET} % at 100).")
    report.notes.append("All but three are observers without a PostgreSQL. All processes share this machine.")
    return report
