"""How long after an epoch was opened each form names its primary; and how long an isolated primary is still named.

The moment of opening is that of the proposal, by the coordinator's clock: that of the same machine here.
"""
import http.client
import json
import pathlib
import re
import statistics
import tempfile
import threading
import time

import nameserver
from cluster import Cluster, free_ports, give
from failover import lease_ms, say
from nameserver import SOA, TXT, ask, ask_srv
from report import Report

ZONE = "db.example.org"
LOOK_EVERY = 0.002
QUIET = 2  # seconds; longer than members put off what is new of standbys alone
TEMPLATE = "{{#primary}}primary {{primary_host}}:{{primary_port}}{{/primary}}\n"
BUDGET_MS, UPDATE_BUDGET_MS = 100, 300
COLUMNS = [("form", "form"), ("budget", "budget, ms"), ("median", "median"), ("worst", "worst"), ("verdict", ""),
           ("count", "seen")]
FORMS = {"topology.json": "JSON file", "database.env": "env file", "pg_service.conf": "service file",
         "databases.ini": "PgBouncer's file", "made.conf": "a template", "http": "HTTP, polled", "watch": "HTTP, waiting",
         "dns": "DNS answer", "update": "RFC 2136, in the name server"}
SERVERS = {"knot": nameserver.Knotd, "bind": nameserver.Named}


class Publishers:
    """Three members that publish in every form, and a name server."""

    def __init__(self, lease, server):
        self.kind = SERVERS[server]
        self.cluster = Cluster(3, lease=lease)
        try:
            self._configure()
            self.cluster.found()
        except BaseException:
            self.cluster.close()
            raise

    def _configure(self):
        cluster = self.cluster
        ports = iter(free_ports(2 * len(cluster.members)))
        # A name server is another machine, whose disk is not busy with our promotions.
        self.memory = tempfile.TemporaryDirectory(dir="/dev/shm")
        give(self.memory.name)
        self.server = self.kind(cluster, pathlib.Path(self.memory.name)).start("example.org SOA")
        key = cluster.directory / "tsig"
        key.write_text(nameserver.SECRET + "\n", encoding="utf-8")
        key.chmod(0o600)
        give(key)
        for member in cluster.members:
            member.http_port, member.dns_port, member.run = next(ports), next(ports), member.directory / "run"
            member.run.mkdir()
            give(member.run)
            (member.directory / "made.in").write_text(TEMPLATE, encoding="utf-8")
            member.write_config(
                http={"listen": "127.0.0.1", "port": member.http_port},
                publish={"topology_file": f"{member.run}/topology.json", "env_file": f"{member.run}/database.env",
                         "service_file": f"{member.run}/pg_service.conf", "pgbouncer_file": f"{member.run}/databases.ini",
                         "templates": {f"{member.run}/made.conf": f"{member.directory}/made.in"}},
                dns={"zone": ZONE, "listen": ["127.0.0.1"], "port": member.dns_port, "update": {
                    "server": f"127.0.0.1:{self.server.port}", "zone": "example.org", "key_name": nameserver.KEY,
                    "key_file": str(key)}})

    def close(self):
        self.cluster.close()
        self.memory.cleanup()


# ---- which port each form leads to, None while to none ----

NOBODY = "There is no primary|Not fresh"  # they name all members then, in any order
PATTERNS = {
    "topology.json": r'"primary":\s*\{[^}]*"port":\s*(\d+)',
    "database.env": r"^PRODUCTION_DATABASE_URL=\S*?:(\d+)",
    "pg_service.conf": r"^port=(\d+)",
    "databases.ini": r"^postgres = .* port=(\d+)",
    "made.conf": r"^primary .*:(\d+)",
}


def in_file(name):
    def look(member):
        text = (member.run / name).read_text(encoding="utf-8")
        found = None if re.search(NOBODY, text) else re.search(PATTERNS[name], text, re.MULTILINE)
        return int(found[1]) if found else None
    return look


def get(member, path, timeout=5):
    connection = http.client.HTTPConnection("127.0.0.1", member.http_port, timeout=timeout)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def by_http(member):
    primary = get(member, "/v1/topology")["primary"]
    return primary and primary["port"]


def by_dns(member):
    code, port = ask_srv(member.dns_port, f"_postgresql._tcp.primary.{ZONE}") or (None, None)
    return port if code == "NOERROR" else None


class Watch:
    """One form of one member: notes when it first leads to another port than the old one."""

    def __init__(self, look, old, pause=LOOK_EVERY):
        self.look, self.old, self.pause, self.when = look, old, pause, None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stop.is_set() and self.when is None:
            try:
                port = self.look()
            except (OSError, http.client.HTTPException, ValueError):
                port = None
            if port not in (None, self.old):
                self.when = time.time() * 1000
            else:
                self.stop.wait(self.pause)


def waiting(member, old):
    """Asks once for each change, as a client does that follows the topology."""
    index = get(member, "/v1/topology")["index"]

    def look():
        nonlocal index
        topology = get(member, f"/v1/topology?index={index}&wait=20s", timeout=30)
        index = topology["index"]
        return topology["primary"] and topology["primary"]["port"]
    return Watch(look, old, pause=0)


def epoch_in(server):
    found = re.search(rb"epoch=(\d+)", ask(server.port, f"_ttorch.{ZONE}", TXT) or b"")
    return int(found[1]) if found else None


def wait_quiet(publishers):
    """Until the name server has had no update for some time: Knot may be a second late with one that follows another
    (docs/DNS.md), and nobody else's primary changes every second."""
    serial, since = None, 0

    def quiet():
        nonlocal serial, since
        found = ask(publishers.server.port, "example.org", SOA)
        if found != serial:
            serial, since = found, time.monotonic()
        return time.monotonic() - since > QUIET
    publishers.cluster.wait(quiet, 30, "the name server is left alone")


def strike(publishers, number, forms):
    """One change of primary; {form: [ms after its opening, of each member]}."""
    cluster = publishers.cluster
    cluster.wait_redundant(60)
    cluster.wait(lambda: epoch_in(publishers.server) == cluster.epoch(), 30, "the name server has the epoch")
    if "update" in forms:
        wait_quiet(publishers)
    old, epoch = cluster.primary(), cluster.epoch()
    watches = []
    for form in forms:
        if form == "update":
            watches.append((form, Watch(lambda: epoch_in(publishers.server), epoch)))
            continue
        for member in cluster.members:
            look = {"http": by_http, "dns": by_dns}.get(form) or (in_file(form) if form != "watch" else None)
            watches.append((form, Watch(lambda look=look, member=member: look(member), old.port) if look else
                            waiting(member, old.port)))
    if number % 2:
        old.kill_postgres()
        # What comes up is perhaps the same one: then no form changes its port.
    else:
        cluster.wait(lambda: old.ttorch("switchover", check=False).returncode == 0, 30, "another member is the primary")
    cluster.wait_new_epoch(epoch)
    opened = next(entry["time_ms"] for entry in cluster.members[0].get("/v1/history")["history"]
                  if entry["kind"] == "opened" and entry["epoch"] == cluster.epoch())
    if cluster.primary() is not old:
        cluster.wait(lambda: all(watch.when for _, watch in watches), 20,
                     f"a new primary is named by each of: {forms}")
    found = {}
    for form, watch in watches:
        watch.stop.set()
        if watch.when is not None:
            found.setdefault(form, []).append(watch.when - opened)
    return found


def isolation(publishers):
    """Each form of the last one of three, from the loss of the others until it names nobody; ms."""
    cluster = publishers.cluster
    cluster.wait_redundant(60)
    last = cluster.primary()
    struck = time.monotonic()
    for member in cluster.standbys():
        member.kill_everything()
    ends = {}

    looks = {form: {"http": by_http, "dns": by_dns}.get(form) or in_file(form)
             for form in FORMS if form not in ("watch", "update")}

    def silent():
        for form, look in looks.items():
            if form not in ends and not look(last):
                ends[form] = (time.monotonic() - struck) * 1000
        return len(ends) == len(looks)
    deadline = time.monotonic() + 60
    while not silent() and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
    return ends


def run_publish(options):
    report = Report("publish", "From an epoch's opening until a form names its primary, in ms", COLUMNS, rounds=options.rounds,
                    lease=options.lease, server=options.server)
    publishers = Publishers(options.lease, options.server)
    seen = {form: [] for form in options.only or FORMS}
    try:
        # A few forms a round: a hundred watchers would be the load that is measured.
        wanted = options.only or list(FORMS)
        groups = [wanted[i:i + 3] for i in range(0, len(wanted), 3)]
        for number in range(options.rounds):
            for group in groups:
                for form, late in strike(publishers, number, group).items():
                    seen[form] += late
            say(f"publish {number + 1}/{options.rounds}")
        for form, late in seen.items():
            budget = UPDATE_BUDGET_MS if form == "update" else BUDGET_MS
            late.sort()
            report.add(form=FORMS[form], budget=budget, median=statistics.median(late) if late else None,
                       worst=max(late, default=None), count=len(late),
                       verdict=("met" if late[-1] <= budget else "missed") if late else None,
                       all=[round(each) for each in late])
        for form, took in isolation(publishers).items():
            budget = lease_ms(options.lease)
            report.add(form=f"{FORMS[form]}: a primary that is cut off is named no more", budget=round(budget),
                       median=took, worst=took, verdict="met" if took <= budget else "missed", count=1, all=[round(took)])
    finally:
        publishers.close()
    report.notes.append(f"Looked at every {1000 * LOOK_EVERY:.0f} ms; the worst must be within the budget.")
    return report
