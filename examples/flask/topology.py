"""Who is the primary and which standbys stream, as the members of the cluster say: followed all the time."""
import dataclasses
import http.client
import json
import threading
import typing
import urllib.request

WAIT = 5  # seconds that a member may wait for a change before it answers
AGAIN = 0.5  # until a member that did not answer, or is not fresh, is asked again


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    host: str
    port: int


@dataclasses.dataclass(frozen=True)
class Topology:
    index: int = 0
    primary: typing.Optional[Server] = None  # None while there is none
    standbys: typing.Tuple[Server, ...] = ()  # those that stream


def parse(answer):
    def server(row):
        return Server(row["member"], row["host"], row["port"])

    primary = answer["primary"]
    standbys = (server(row) for row in answer["standbys"] if row["state"] == "streaming")
    return Topology(answer["index"], server(primary) if primary else None, tuple(standbys))


class Follower:
    """Asks every member in a thread of its own, so that one that is gone holds up nothing; the largest index is the
    newest. `members` are URLs such as http://10.0.0.1:8008."""

    def __init__(self, members):
        self.now = Topology()
        self._changed = threading.Condition()
        for member in members:
            threading.Thread(target=self._follow, args=(member,), daemon=True).start()

    def wait(self, predicate, timeout):
        """Until predicate(topology) is true; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: predicate(self.now), timeout)

    def _follow(self, member):
        index, pause = 0, threading.Event()
        while True:
            try:
                url = f"{member}/v1/topology?index={index}&fresh=true&wait={WAIT}s"
                with urllib.request.urlopen(url, timeout=WAIT + 2) as response:
                    topology = parse(json.load(response))
                self._take(topology)
                index = topology.index
            except (OSError, ValueError, http.client.HTTPException):  # 503, too: not fresh, it knows nothing of now
                index = 0  # the next answer comes at once
                pause.wait(AGAIN)

    def _take(self, topology):
        with self._changed:
            if topology.index >= self.now.index:
                self.now = topology
                self._changed.notify_all()
