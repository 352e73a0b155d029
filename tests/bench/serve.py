"""How many programs may ask one ttorchd, and what that does to the lease: checks, watchers, DNS.

The member asked is the primary's, with the lease. `serve_load.c` asks; it shares the machine with all members.
"""
import json
import subprocess
import time

from cluster import BUILD, Cluster, free_ports
from failover import lease_ms, say
from lease import RENEWALS, Left
from report import Report
from usage import Usage

ZONE = "db.example.org"
CHECKS, QUERIES, WATCHERS, WAKE_MS = 5000, 20000, 1000, 50  # the budgets
CONNECTIONS, WINDOW = 16, 64
COLUMNS = [("what", ""), ("budget", "budget"), ("rate", "a second"), ("cpu", "% of a core"), ("per_core", "a second on one core"),
           ("median", "half within, ms"), ("late", "99 % within, ms"), ("first", "command to first, ms"),
           ("wake", "first to last, ms"), ("left", "least lease left, ms"), ("verdict", "")]


def generator(*words):
    return subprocess.Popen([BUILD / "tests/bench/serve_load", *map(str, words)], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, text=True)


def publishers(lease):
    cluster = Cluster(3, lease=lease)
    try:
        for member, http, dns in zip(cluster.members, free_ports(3), free_ports(3)):
            member.http_port, member.dns_port = http, dns
            member.write_config(http={"listen": "127.0.0.1", "port": http}, dns={
                "zone": ZONE, "listen": ["127.0.0.1"], "port": dns, "rate_limit": 0})
        cluster.found()
        cluster.wait_redundant(60)
        return cluster
    except BaseException:
        cluster.close()
        raise


def under(cluster, *words):
    """(what the generator says, the daemon's % of a core, least lease left in ms), while it asks."""
    primary = cluster.primary()
    with Left(cluster) as left:
        before = Usage([primary.daemon.pid])
        process = generator(*words)
        said = json.loads(process.communicate()[0].splitlines()[-1])
        cpu, _ = Usage([primary.daemon.pid]).since(before)
    return said, cpu, min(left.samples, default=None)


def rested(cluster, seconds):
    """The least lease left while nobody asks."""
    with Left(cluster) as left:
        time.sleep(seconds)  # the time that is measured
    return min(left.samples, default=None)


def asked(report, cluster, what, budget, enough, *words):
    """One row. `enough` is the least lease that counts as no effect."""
    said, cpu, left = under(cluster, *words)
    rate = said["answers"] / said["seconds"]
    per_core = rate / max(cpu, 1) * 100
    met = per_core >= budget and left is not None and left >= enough and not said["wrong"]
    report.add(what=what, budget=budget, rate=rate, cpu=cpu, per_core=per_core, median=said["median_ms"], late=said["late_ms"],
               left=left, wrong=said["wrong"], verdict="met" if met else "missed")
    if said["wrong"]:
        report.notes.append(f"{what}: {said['wrong']} answers were not what they should be.")
    say(f"serve: {what}: {rate:.0f} a second")


def woken(cluster, count):
    """(ms until the first and the last of `count` watchers has the change that a command makes)."""
    member = cluster.primary()
    cluster.wait_redundant(60)
    index = member.get("/v1/topology")["index"]
    process = generator("watch", member.http_port, count, f"/v1/topology?index={index}&wait=60s")
    process.stdout.readline()
    for _ in range(3):
        member.get("/v1/topology")  # one loop: what was sent before these has been read when they are answered
    struck = time.time() * 1000
    switching = subprocess.Popen(member.command("ttorch", "--config", member.config, "switchover"),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    said = json.loads(process.communicate(timeout=90)[0].splitlines()[-1])
    switching.wait(timeout=60)
    return said["first_ms"] - struck, said["last_ms"] - struck


def run_serve(options):
    report = Report("serve", "What one ttorchd answers, and what its lease is meanwhile", COLUMNS, seconds=options.seconds,
                    rounds=options.rounds, lease=options.lease)
    cluster = publishers(options.lease)
    try:
        primary = cluster.primary()
        http, dns = primary.http_port, primary.dns_port
        quiet = rested(cluster, min(options.seconds, 5))
        enough = quiet - lease_ms(options.lease) / RENEWALS
        report.add(what="nobody asks", left=quiet)
        for what, mode, rate in ((f"GET /primary, {CHECKS} a second", "checks", CHECKS), ("GET /primary, as many as it answers",
                                 "checks", 0), ("the same, a new connection for each", "connects", 0)):
            asked(report, cluster, what, CHECKS, enough, mode, http, CONNECTIONS, options.seconds, rate, "/primary")
        asked(report, cluster, "DNS over UDP, as many as it answers", QUERIES, enough, "dns", dns, WINDOW, options.seconds,
              f"primary.{ZONE}")
        for first, last in [woken(cluster, options.watchers) for _ in range(options.rounds)]:
            report.add(what=f"{options.watchers} watchers, one change", budget=f"{WAKE_MS} ms", first=first, wake=last - first,
                       verdict="met" if last - first <= WAKE_MS else "missed")
        report.notes.append("On one core: what it answered, by the share of a core that it took. The lease counts as undisturbed "
                            f"if no more than one renewal ({lease_ms(options.lease) / RENEWALS:.0f} ms) is missing of it.")
    finally:
        cluster.close()
    return report
