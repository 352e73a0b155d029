"""The program on each page of docs/clients, as printed there, writes and reads through a failover and a switchover."""
import contextlib
import dataclasses
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import typing

import psycopg
import pytest

from cluster import SOURCE, free_ports, give

GOPATH = os.environ.get("GOPATH", "/usr/share/gocode")
NODE_PATH = SOURCE / "build/node/node_modules"  # where ./dev puts `pg` when Debian's is not to be had
RUN = "/run/ttorch"


def version_of(module):
    return tuple(int(part) for part in re.findall(r"\d+", module.__version__)[:3])


@dataclasses.dataclass
class Page:
    """The program in one of its blocks, and how it is run."""
    name: str
    language: str
    file: str
    command: typing.List[str]
    block: int = 0
    replace: typing.Tuple[str, str] = ("", "")

    def text(self):
        return (SOURCE / f"docs/clients/{self.name}.md").read_text(encoding="utf-8")

    def program(self):
        block = re.findall(rf"^```{self.language}\n(.*?)^```$", self.text(), re.MULTILINE | re.DOTALL)[self.block]
        return block.replace(*self.replace)


FAST_JAVA = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]  # to start
PYTHON = ["/usr/bin/python3", "store.py"]
PAGES = {
    "psql": Page("LIBPQ", "sh", "store.sh", ["bash", "-eu", "store.sh"]),
    "psycopg": Page("PYTHON", "python", "store.py", PYTHON),
    "psycopg2": Page("PYTHON", "python", "store.py", PYTHON, replace=("psycopg", "psycopg2")),
    "sqlalchemy": Page("PYTHON", "python", "store.py", PYTHON, block=1),
    "jdbc": Page("JAVA", "java", "Store.java", ["java", *FAST_JAVA, "-cp", "/usr/share/java/postgresql.jar", "Store.java"]),
    "node": Page("NODE", "javascript", "store.js", ["node", "store.js"]),
    "go": Page("GO", "go", "store.go", ["go", "run", "store.go"]),
}
UNTRIED = {} if shutil.which("go") and os.path.isdir(f"{GOPATH}/src/github.com/jackc/pgx/v4") else {
    "go": "Go and pgx are not installed, half a gigabyte; the page says that it is not tried"}
TRIED = set(PAGES) - set(UNTRIED)


def parameters(names):
    """Those that cannot be tried here are skipped with a reason, and counted."""
    return [pytest.param(name, marks=pytest.mark.skip(reason=UNTRIED[name])) if name in UNTRIED else name for name in names]


# With them a host that says nothing uses up the time of the others, as their pages say.
ONE_TIMEOUT_FOR_ALL = {"go", *(["psycopg"] if version_of(psycopg) < (3, 1, 13) else [])}


class Program:
    """It runs as an application does: with what was published when it started."""

    def __init__(self, cluster, name, directory, change=lambda text: text):
        self.name, page, member = name, PAGES[name], cluster.members[0]
        self.directory = directory / name
        self.directory.mkdir()
        program = page.program().replace(RUN, str(self.directory))
        (self.directory / page.file).write_text(program, encoding="utf-8")
        for published in ("database.env", "pg_service.conf"):
            text = (member.directory / "run" / published).read_text(encoding="utf-8")
            (self.directory / published).write_text(change(text), encoding="utf-8")
        members = ",".join(f"http://127.0.0.1:{member.http_port}" for member in cluster.members)
        environment = {
            "GOPATH": GOPATH, **os.environ, "GO111MODULE": "off", "LC_ALL": "C.UTF-8", "HOME": str(self.directory),
            "NODE_PATH": f"/usr/share/nodejs:{NODE_PATH}", "TTORCH_MEMBERS": change(members)}
        self.process = subprocess.Popen(
            ["bash", "-euc", 'set -a; . ./database.env; set +a; exec "$@" 2>stderr', "bash", *page.command],
            cwd=self.directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            env=environment)
        self.lines = []  # that were acknowledged
        self.readers = []  # "a standby" or "the primary" for each
        self._answers = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._answers.put(line.strip())
        self._answers.put("")

    def store(self, timeout=60):
        """One line; the answer says that it is stored."""
        line = f"{self.name} {len(self.lines)}"
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            answer = f"no answer in {timeout} s"
        told = re.fullmatch(rf"{line}: stored, \d+ rows on (a standby|the primary)", answer)
        assert told, f"{line}: {answer}\n{self.told()}"
        self.lines.append(line)
        self.readers.append(told[1])

    def told(self):
        return (self.directory / "stderr").read_text(encoding="utf-8")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Busy:
    """A program that stores lines one after the other, all the time."""

    def __init__(self, program):
        self.program, self.trouble = program, None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._stop.wait(0.02):  # they share the machine with the cluster
                self.program.store()
        except (AssertionError, OSError) as trouble:
            self.trouble = trouble

    def goes_on(self, cluster):
        """It stores more, and reads on a standby again; or it is in trouble."""
        before = len(self.program.lines)

        def done():
            return len(self.program.lines) > before + 2 and "a standby" in self.program.readers[before + 1:]

        cluster.wait(lambda: self.trouble or done(), 90, f"{self.program.name} goes on")

    def stop(self):
        """After the line that is on its way."""
        self._stop.set()
        self._thread.join(60)

    def kill(self):
        self._stop.set()
        self.program.kill()
        self._thread.join(60)


@pytest.fixture(scope="module")
def cluster(clusters):
    three = clusters.make(3)
    for member, port in zip(three.members, free_ports(3)):
        member.http_port, run = port, member.directory / "run"
        run.mkdir()
        give(run)
        member.write_config(http={"listen": "127.0.0.1", "port": port}, publish={
            "user": "postgres", "env_file": f"{run}/database.env", "service_file": f"{run}/pg_service.conf"})
    three.found()
    first = three.members[0].directory / "run"
    three.wait(lambda: (first / "database.env").exists() and "READ_REPLICA_2_URL" in (first / "database.env").read_text(),
               20, "both standbys are published")
    three.primary().query("CREATE TABLE note (id uuid PRIMARY KEY, text text)")
    yield three
    clusters.close_own()


@contextlib.contextmanager
def running(cluster, tmp_path_factory, names, change=lambda text: text):
    """These programs, all at once, by their names."""
    busy = {}
    try:
        for name in sorted(names):
            busy[name] = Busy(Program(cluster, name, tmp_path_factory.mktemp("client"), change))
        yield busy
    finally:
        for one in busy.values():
            one.kill()


@pytest.fixture(scope="module")
def storm(cluster, tmp_path_factory):
    """All programs, after a failover and a switchover."""
    with running(cluster, tmp_path_factory, TRIED) as busy:
        for one in busy.values():
            one.goes_on(cluster)
        for change in ("failover", "switchover"):
            epoch = cluster.epoch()
            if change == "failover":
                cluster.primary().kill_postgres()
            else:
                cluster.primary().ttorch("switchover", "--yes")
            cluster.wait_new_epoch(epoch, 60)
            for one in busy.values():
                one.goes_on(cluster)
            cluster.wait_redundant(60)
        for one in busy.values():
            one.stop()
        yield busy


@pytest.mark.limit(300)
@pytest.mark.parametrize("name", parameters(PAGES))
def test_through_failover_and_switchover(cluster, storm, name):
    """Each line that was acknowledged is there, once; and it read on standbys in the end."""
    busy = storm[name]
    assert busy.trouble is None, busy.trouble
    stored = cluster.primary().query("SELECT array_agg(text) FROM note WHERE text LIKE %s", f"{name} %")
    acknowledged = busy.program.lines
    assert sorted(line for line in stored if line in set(acknowledged)) == sorted(acknowledged)
    assert len(stored) == len(set(stored))


@pytest.fixture(scope="module")
def held_up(cluster, tmp_path_factory):
    """All programs, with a first host that takes connections and never says anything, as a frozen one does."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        silent = server.getsockname()[1]

        def add_silent(text):
            text = re.sub(r"(postgresql://(?:postgres@)?)", rf"\g<1>127.0.0.1:{silent},", text)
            text = re.sub(r"^port=", f"port={silent},", text, flags=re.MULTILINE)
            text = re.sub(r"^host=", "host=127.0.0.1,", text, flags=re.MULTILINE)
            return re.sub(r"^http:", f"http://127.0.0.1:{silent},http:", text)

        with running(cluster, tmp_path_factory, TRIED - ONE_TIMEOUT_FOR_ALL, add_silent) as busy:
            yield busy


@pytest.mark.limit(180)
@pytest.mark.parametrize("name", parameters(name for name in PAGES if name not in ONE_TIMEOUT_FOR_ALL))
def test_first_host_is_silent(cluster, held_up, name):
    """It costs time, and nothing else."""
    busy = held_up[name]
    cluster.wait(lambda: busy.trouble or busy.program.lines, 90, f"{name} has stored a line")
    assert busy.trouble is None, busy.trouble


RESOLVE = """
public class Resolve {
    public static void main(String[] words) throws Exception {
        var lines = new java.io.BufferedReader(new java.io.InputStreamReader(System.in));
        while (lines.readLine() != null)
            System.out.println(java.net.InetAddress.getByName("primary.db.example.org").getHostAddress());
    }
}
"""


def test_java_follows_dns(tmp_path, limit):
    """With the page's option it asks again after a second; by default it would after half a minute."""
    option, = re.findall(r"`(-Dsun\S+)`", PAGES["jdbc"].text())
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 primary.db.example.org\n", encoding="utf-8")
    (tmp_path / "Resolve.java").write_text(RESOLVE, encoding="utf-8")
    java = ["java", option, f"-Djdk.net.hosts.file={hosts}", *FAST_JAVA, "Resolve.java"]
    with subprocess.Popen(java, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        def ask():
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        try:
            assert ask() == "127.0.0.1"
            hosts.write_text("127.0.0.2 primary.db.example.org\n", encoding="utf-8")
            deadline = time.monotonic() + 20
            while ask() != "127.0.0.2":
                assert time.monotonic() < deadline, "the old address is still in use"
                time.sleep(0.1)
        finally:
            process.kill()
