"""examples/flask as its README starts it: it writes through failover and switchover, and its users read their writes."""
import http.client
import http.cookiejar
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid

import pytest

from cluster import SOURCE, Cluster, free_ports

EXAMPLE = SOURCE / "examples/flask"
SETUP, USE = re.findall(r"^```sh\n(.*?)^```$", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


class User:
    """Somebody with a cookie jar, who sends what was not acknowledged again, with the same id."""

    def __init__(self, url):
        self.url = url
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def send(self, method, path, body=None):
        """Status, JSON, and which member was read."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode() if body else None,
                                         {"Content-Type": "application/json"}, method=method)
        try:
            with self.opener.open(request, timeout=20) as response:
                return response.status, json.loads(response.read() or "null"), response.headers["X-Served-By"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read()), ""

    def put(self, path, body):
        deadline = time.monotonic() + 60
        while (status := self.send("PUT", path, body)[0]) != 204:
            assert status == 503 and time.monotonic() < deadline, f"{path}: {status}"

    def scan(self, bag, place):
        self.put(f"{bag}/scans/{uuid.uuid4()}", {"place": place})

    def bag(self):
        path = f"/bags/{uuid.uuid4()}"
        self.put(path, {"label": "blue"})
        return path

    def places(self, bag):
        """Of the bag's scans, and which member told."""
        status, body, member = self.send("GET", bag)
        assert status == 200, f"{bag}: {status} {body}"
        return [scan["place"] for scan in body["scans"]], member


class Warehouse:
    """The application, one process from the first test to the last."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.port, = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.script = self.as_here(SETUP)
        self.log = cluster.directory / "warehouse.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(["bash", "-euc", self.script], cwd=SOURCE, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True,
                                            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
        self.user = User(self.url)

    def as_here(self, text):
        members = ",".join(f"http://127.0.0.1:{member.http_port}" for member in self.cluster.members)
        text = re.sub(r"(?<=TTORCH_MEMBERS=)\S+", members, text)
        return text.replace("--port 5000", f"--port {self.port}").replace("127.0.0.1:5000", f"127.0.0.1:{self.port}")

    def answers(self):
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        try:
            return self.user.send("GET", f"/bags/{uuid.uuid4()}")[0] == 404
        except (OSError, http.client.HTTPException):
            return False

    def close(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Served(Cluster):
    """Three members, and the application beside them."""

    warehouse = None

    def begin(self):
        for member, port in zip(self.members, free_ports(3)):
            member.http_port = port
            member.write_config(http={"listen": "127.0.0.1", "port": port})
        self.found()
        self.warehouse = Warehouse(self)
        self.wait(self.warehouse.answers, 30, "the application answers")

    def close(self):
        if self.warehouse is not None:
            self.warehouse.close()
        super().close()


@pytest.fixture
def cluster(of_file):
    return of_file(lambda: Served(3), Served.begin)


@pytest.fixture
def warehouse(cluster):
    return cluster.warehouse


@pytest.fixture
def user(warehouse, cluster, limit):
    """Somebody new, on a cluster that is whole."""
    cluster.wait_redundant(60)
    return User(warehouse.url)


class Busy:
    """A user who scans one bag all the time, and looks after each scan whether it is there."""

    def __init__(self, user):
        self.user, self.bag, self.count, self.members = user, user.bag(), 0, []
        self.trouble = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._stop.is_set():
                self.user.scan(self.bag, str(self.count))
                self.count += 1
                places, member = self.user.places(self.bag)
                assert places == [str(number) for number in range(self.count)], "reads its own writes, each once"
                self.members.append(member)
        except (AssertionError, OSError, http.client.HTTPException) as trouble:
            self.trouble = trouble

    def goes_on(self, cluster, rounds=5):
        """Waits for some more rounds."""
        wanted = len(self.members) + rounds
        cluster.wait(lambda: self.trouble or len(self.members) >= wanted, 60, "the user goes on")
        assert not self.trouble, self.trouble

    def reads_from(self, cluster, members):
        """Waits until it has read from each of them."""
        seen, names = len(self.members), {member.name for member in members}
        cluster.wait(lambda: self.trouble or names <= set(self.members[seen:]), 60, f"{members} are read from")

    def stop(self):
        self._stop.set()
        self._thread.join(30)
        assert not self.trouble, self.trouble


@pytest.mark.parametrize("how", ["failover", "switchover"])
def test_the_primary_changes(cluster, user, how):
    """A user at work sees nothing of it: no error, each of his scans at once, and once. Nobody restarts anything."""
    busy, epoch = Busy(user), cluster.epoch()
    try:
        busy.goes_on(cluster)
        if how == "failover":
            cluster.primary().kill_postgres()
        else:
            cluster.primary().ttorch("switchover", "--yes")
        cluster.wait_new_epoch(epoch, 60)
        busy.goes_on(cluster)
        cluster.wait_redundant(60)
        busy.reads_from(cluster, cluster.standbys())
    finally:
        busy.stop()


def test_a_standby_that_replays_nothing(cluster, user):
    """It serves nobody who has written what it lacks, and everybody else; with no better one the primary serves."""
    bag, standbys = user.bag(), cluster.standbys()
    stuck, good = standbys
    stuck.query("SELECT pg_wal_replay_pause()")
    try:
        cluster.wait(lambda: stuck.query("SELECT pg_get_wal_replay_pause_state()") == "paused", 20, "it is paused")
        for i in range(8):
            user.scan(bag, str(i))
            places, member = user.places(bag)
            assert places == [str(number) for number in range(i + 1)] and member != stuck.name
        cluster.wait(lambda: user.places(bag)[1] == good.name, 20, "the other one serves")
        stranger = User(user.url)
        cluster.wait(lambda: stranger.send("GET", bag)[2] == stuck.name, 20, "who has written nothing reads anywhere")
        good.query("SELECT pg_wal_replay_pause()")
        user.scan(bag, "last")
        places, member = user.places(bag)
        assert places[-1] == "last" and member == cluster.primary().name
    finally:
        for standby in standbys:
            standby.query("SELECT pg_wal_replay_resume()")
    cluster.wait(lambda: user.places(bag)[1] == stuck.name, 20, "it serves again")


def test_a_member_is_gone(cluster, user):
    """With its HTTP, too: the others tell where to write when the primary fails meanwhile."""
    busy, epoch, old, lost = Busy(user), cluster.epoch(), cluster.primary(), cluster.standbys()[0]
    try:
        lost.kill_everything()
        busy.goes_on(cluster)
        old.kill_postgres()
        cluster.wait_new_epoch(epoch, 60)
        busy.goes_on(cluster)
        lost.start()
        cluster.wait_redundant(60)
        busy.reads_from(cluster, cluster.standbys())
    finally:
        busy.stop()


def test_readme(cluster, warehouse, user):
    """The commands of a client."""
    done = subprocess.run(["bash", "-euc", warehouse.as_here(USE)], cwd=cluster.directory, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r'"place": ?"gate 4"', done.stdout)
    assert re.search(r"^X-Served-By: m\d", done.stdout, re.MULTILINE)


def test_mistakes_are_told(user):
    assert user.send("PUT", f"/bags/{uuid.uuid4()}/scans/{uuid.uuid4()}", {"place": "gate 4"})[0] == 409
    assert user.send("GET", f"/bags/{uuid.uuid4()}")[0] == 404
