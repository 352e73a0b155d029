"""What ttorch uses while nothing happens, for each member by its duty."""
import time

from faults import PROCESSES
from report import Report
from swift import SwiftHosts
from usage import Traffic, Usage, disk_mb, memory_mb, system_calls

COLUMNS = [("voters", "voters"), ("observers", "observers"), ("duty", "member"), ("cpu", "ttorchd, % of a core"), ("memory", "MB resident"),
           ("guard_memory", "guard, MB"), ("disk", "MB on disk"), ("packets", "packets/s"), ("bytes", "bytes/s"),
           ("calls", "system calls/s"), ("switches", "wake-ups/s"), ("postgres", "its PostgreSQL, % of a core")]
TARGET = "Target for a member: less than 0.5 % of a core, 10 MB resident, 1 MB on disk."
MOST_CALLED = 6


def duty_of(hosts, host, status):
    if host.name == status["primary"]:
        return "primary"
    if host.observer:
        return "observer"
    return "coordinator" if host.name == status["leader"] else "other"


class Sample:
    """One member at one moment."""

    def __init__(self, host):
        self.host = host
        self.daemon = host.pids(PROCESSES["daemon"])
        self.postgres = host.pids(PROCESSES["PostgreSQL"])
        self.of_daemon, self.of_postgres = Usage(self.daemon), Usage(self.postgres)
        self.traffic = Traffic(self.daemon[0], ("nsenter", f"--net={host.namespace}"))

    def since(self, before):
        cpu, switches = self.of_daemon.since(before.of_daemon)
        packets, size = self.traffic.since(before.traffic)
        return {"cpu": cpu, "switches": switches, "packets": packets, "bytes": size,
                "postgres": self.of_postgres.since(before.of_postgres)[0]}


def settle(hosts):
    hosts.wait_redundant(90)

    def quiet():
        status = hosts.status()
        return status and status["leader"] and status["leader"] != status["primary"]
    hosts.wait(quiet, 60, "the Raft leader is not on the primary's host")


def measure(report, voters, observers, seconds):
    hosts = SwiftHosts(voters, observers=observers).start()
    try:
        settle(hosts)
        hosts.watched = False
        time.sleep(min(seconds, 3))  # what founding has left to do
        before = {host: Sample(host) for host in hosts.members}
        time.sleep(seconds)  # the time that is measured
        rows = {}
        for host in hosts.members:
            found = Sample(host)
            row = found.since(before[host])
            row.update(memory=memory_mb(found.daemon), guard_memory=memory_mb(host.pids(PROCESSES["guard"])),
                       disk=disk_mb(host.directory / "ttorch"))
            rows[host] = row
        status = hosts.status()
        chosen = {}
        for host in hosts.members:  # of those with the same duty, the one that uses most
            duty = duty_of(hosts, host, status)
            if duty not in chosen or rows[host]["cpu"] > rows[chosen[duty]]["cpu"]:
                chosen[duty] = host
        for duty in [duty for duty in ("primary", "coordinator", "other", "observer") if duty in chosen]:
            calls, names = system_calls(chosen[duty].pids(PROCESSES["daemon"])[0], min(seconds, 5))
            report.add(voters=voters, observers=observers, duty=duty, calls=calls, call_names=names, **rows[chosen[duty]])
    finally:
        hosts.close()


def run_idle(options):
    report = Report("idle", "What an idle member uses", COLUMNS, seconds=options.seconds)
    report.notes.append(TARGET)
    for voters in options.voters:
        measure(report, voters, 0, options.seconds)
    if options.observers > 0:
        measure(report, options.voters[0], options.observers, options.seconds)
    for row in report.rows[:3]:
        if row["call_names"]:
            most = sorted(row["call_names"].items(), key=lambda item: -item[1])[:MOST_CALLED]
            listed = ", ".join(f"{name} {rate:.0f}" for name, rate in most)
            report.notes.append(f"The {row['duty']}'s system calls: {listed} a second.")
    if options.observers > 0:
        report.notes.append("The observers have no PostgreSQL.")
    return report
