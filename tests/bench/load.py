"""pgbench: once, or all the time on whoever is the primary."""
import re
import subprocess
import threading

from cluster import postgres_programs


def pgbench(server, *words, **more):
    """A running pgbench; its output is thrown away, unless `more` says otherwise."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "text": True, **more}
    return subprocess.Popen([postgres_programs() / "pgbench", *map(str, words), server.conninfo()], **options)


def prepare_tables(server, scale):
    if pgbench(server, "-i", "-q", "-s", scale).wait() != 0:
        raise AssertionError("pgbench could not make its tables")


class Load:
    """Clients that commit as fast as they can, begun anew when their server is gone. `transactions` is what they did."""

    SLICE = 10  # seconds; what a server that dies has done of one is not counted

    def __init__(self, cluster, clients, scale=3):
        self.cluster, self.clients, self.scale, self.transactions = cluster, clients, scale, 0
        self._process = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        prepare_tables(self.cluster.wait(self.cluster.primary, 60, "a primary"), self.scale)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join()

    def _run(self):
        while not self._stop.is_set():
            primary = self.cluster.primary()
            if primary is None:
                self._stop.wait(0.03)
                continue
            self._process = pgbench(primary, "-n", "-N", "-c", self.clients, "-T", self.SLICE, stdout=subprocess.PIPE)
            done = re.search(r"transactions actually processed: (\d+)", self._process.communicate()[0])
            self.transactions += int(done[1]) if done else 0
