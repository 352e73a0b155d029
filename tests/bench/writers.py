"""Writers as a patient application has them: each keeps a connection to every server, and writes to the primary.

All run in one thread. A writer sends one row in each of its turns to the server that acknowledged the last one. If that
one has failed, or has not answered within HEDGE, it sends its rows to the others, too: a standby refuses at once, and
the first that does not is the new primary. What is acknowledged is kept as `clients.Clients` keeps it, so the same
checks for lost rows and for two primaries hold.
"""
import bisect
import select
import threading
import time

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from clients import CLIENTS_MAX, WRITE, Clients, Tenure
from ledger import UNSURE, WRITE_TIMEOUT

HEDGE = 0.03
CONNECT_TIMEOUT = 1.0  # nothing waits for it but the one connection
RECONNECT = 0.05
READING, WRITING = psycopg2.extensions.POLL_READ, psycopg2.extensions.POLL_WRITE


class Line:
    """One writer's connection to one server."""

    def __init__(self, server, number):
        self.server, self.number = server, number
        self.acknowledged, self.tenures = [], {}
        self.connection = self.cursor = None
        self.wants = 0  # what its socket is waited for
        self.since = 0.0  # of the connection's state
        self.row = None  # sent, not yet answered
        self.ready = False

    def open(self, now):
        self.since, self.ready = now, False
        try:
            self.connection = psycopg2.connect(self.server.conninfo(), async_=True)
        except psycopg2.Error:
            self.connection = None

    def close(self, now):
        if self.connection is not None:
            self.connection.close()
        self.connection, self.row, self.ready, self.since, self.wants = None, None, False, now, 0

    def send(self, row, now):
        self.row, self.since = row, now
        del self.connection.notices[:]
        self.cursor = self.connection.cursor()
        self.cursor.execute(WRITE, (row * CLIENTS_MAX + self.number,))

    def is_late(self, now):
        limit = WRITE_TIMEOUT if self.ready else CONNECT_TIMEOUT
        return self.connection is not None and (self.row is not None or not self.ready) and now > self.since + limit

    def acknowledge(self, now):
        timeline = int(self.cursor.fetchone()[0], 16)
        tenure = self.tenures.setdefault(timeline, Tenure())
        tenure.add(self.since, now)
        self.acknowledged.append((self.row * CLIENTS_MAX + self.number, now))


class Writer:
    def __init__(self, lines, period, first):
        self.lines, self.period, self.due = lines, period, first
        self.favourite = lines[0]
        self.rows = 0

    def turn(self, now):
        """Sends a row; to whom else, when the favourite is not to be relied on."""
        self.due = max(self.due + self.period, now)
        self.rows += 1
        favourite = self.favourite
        if favourite.ready and favourite.row is None:
            favourite.send(self.rows, now)
        elif not favourite.ready or now > favourite.since + HEDGE:
            for line in self.lines:
                if line.ready and line.row is None:
                    line.send(self.rows, now)


class Writers(Clients):
    def __init__(self, servers, writers=4, rate=100):
        self.servers = servers
        self.times = []  # of all acknowledgements, in order
        self.failed = 0  # rows that were sent to a primary and may be lost
        period, start = 1 / rate, time.monotonic()
        self._writers = [Writer([Line(server, i * len(servers) + j) for j, server in enumerate(servers)], period,
                                start + i * period / writers) for i in range(writers)]
        self.each = [line for writer in self._writers for line in writer.lines]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        self._stop.set()
        self._thread.join(timeout=10)

    # ---- what was seen ----

    def wrote_after(self, moment):
        return bool(self.times) and self.times[-1] > moment

    def outage(self, since, until=None):
        """The longest time without an acknowledgement, of those that reach past `since` and begin before `until`."""
        times = self.times[max(bisect.bisect_right(self.times, since) - 1, 0):] + [time.monotonic()]
        return max((after - before for before, after in zip(times, times[1:])
                    if after > since and (until is None or before < until)), default=0.0)

    # ---- the thread ----

    def _run(self):
        poller, watched = select.poll(), {}
        while not self._stop.is_set():
            now = time.monotonic()
            for writer in self._writers:
                self._tend(writer, now)
            self._watch(poller, watched)
            wait = min(writer.due for writer in self._writers) - time.monotonic()
            for fd, _ in poller.poll(max(wait, 0) * 1000):
                if fd in watched:
                    writer, line = watched[fd][:2]
                    self._proceed(writer, line)
        for line in self.each:
            line.close(0)

    def _tend(self, writer, now):
        for line in writer.lines:
            if line.is_late(now):
                self.failed += line.row is not None
                line.close(now)
            if line.connection is None and now > line.since + RECONNECT:
                line.open(now)
        if now >= writer.due:
            try:
                writer.turn(now)
            except psycopg2.Error:
                pass  # the poll of that line tells

    def _watch(self, poller, watched):
        """Waits for what each connection wants now."""
        wanted = {}
        for writer in self._writers:
            for line in writer.lines:
                if line.connection is not None and not line.connection.closed:
                    if not line.ready and not line.wants:
                        self._proceed(writer, line)
                    if line.connection is not None:
                        events = select.POLLOUT if line.wants == WRITING else select.POLLIN
                        wanted[line.connection.fileno()] = (writer, line, events)
        for fd in watched.keys() - wanted.keys():
            try:
                poller.unregister(fd)
            except (KeyError, OSError):
                pass
        for fd, (_, _, events) in wanted.items():
            poller.register(fd, events)
        watched.clear()
        watched.update(wanted)

    def _proceed(self, writer, line):
        if line.connection is None:
            return
        try:
            state = line.connection.poll()
            line.wants = state
            if state == psycopg2.extensions.POLL_OK:
                self._answered(writer, line)
        except psycopg2.errors.ReadOnlySqlTransaction:
            line.row = None
            if writer.favourite is line:  # it is a standby now
                writer.favourite = next(other for other in writer.lines if other is not line)
        except psycopg2.Error:
            self.failed += line.row is not None
            line.close(time.monotonic())

    def _answered(self, writer, line):
        now = time.monotonic()
        if line.row is not None:
            if any(UNSURE in notice for notice in line.connection.notices):
                self.failed += 1
            else:
                line.acknowledge(now)
                self.times.append(now)
                writer.favourite = line
            line.row = None
        line.ready = True
