"""Clients that write to one server each, whoever that is at the moment, and keep every acknowledgement.

Each acknowledgement has the timeline on which the row was written, which tells the epoch, and the times of question
and answer on this machine's monotonic clock. So it can be said afterwards whether two servers acknowledged at the
same time.
"""
import time

from ledger import UNSURE, WRITE_TIMEOUT, Ledger, finish

WRITE = "INSERT INTO ledger (number) VALUES (%s) RETURNING left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"
CLIENTS_MAX = 100  # so many may share the numbers


class Tenure:
    """What one server acknowledged on one timeline."""

    def __init__(self):
        self.last_sent = 0.0
        self.first_received = float("inf")

    def add(self, sent, received):
        self.last_sent = max(self.last_sent, sent)
        self.first_received = min(self.first_received, received)


class Client(Ledger):
    def __init__(self, server, number, enter, namespace):
        super().__init__([server.conninfo()], pause=0.02)
        self.server, self.number = server, number
        self.tenures = {}
        self._enter, self._namespace = enter, namespace

    def _run(self):
        if self._namespace:
            self._enter(self._namespace)
        super()._run()

    def _write(self, connection, number):
        number = number * CLIENTS_MAX + self.number
        del connection.notices[:]
        cursor, sent = connection.cursor(), time.monotonic()
        cursor.execute(WRITE, (number,))
        finish(connection, WRITE_TIMEOUT)
        received, timeline = time.monotonic(), int(cursor.fetchone()[0], 16)
        if not any(UNSURE in notice for notice in connection.notices):
            self.record(number, timeline, sent, received)

    def record(self, number, timeline, sent, received):
        self.tenure(timeline).add(sent, received)
        self.acknowledged.append((number, received))

    def tenure(self, timeline):
        return self.tenures.setdefault(timeline, Tenure())


class Clients:
    """Of every server two: on the network, and on the server's own host."""

    def __init__(self, servers, enter):
        self.servers = servers
        self.each = [Client(server, 2 * i + inside, enter, server.namespace if inside else None)
                     for i, server in enumerate(servers) for inside in (0, 1)]

    def start(self):
        for client in self.each:
            client.start()
        return self

    def stop(self):
        for client in self.each:
            client.stop()

    def wrote_after(self, moment):
        return any(client.wrote_after(moment) for client in self.each)

    def count(self):
        return sum(len(client.acknowledged) for client in self.each)

    def outage(self, since):
        """The longest time without an acknowledgement from anyone that reaches past `since`."""
        times = sorted(when for client in self.each for _, when in list(client.acknowledged)) + [time.monotonic()]
        return max((after - before for before, after in zip(times, times[1:]) if after > since), default=0)

    def lost(self, connection):
        acknowledged = [number for client in self.each for number, _ in list(client.acknowledged)]
        assert acknowledged, f"nothing was ever acknowledged: {[client.last_error for client in self.each]}"
        with connection.cursor() as cursor:
            cursor.execute("SELECT number FROM ledger")
            there = {number for number, in cursor.fetchall()}
        return [number for number in acknowledged if number not in there]

    def overlaps(self):
        """Each timeline has one server, and none acknowledges what was sent when a later one has acknowledged."""
        found, tenures = [], {}
        for client in self.each:
            for timeline, tenure in list(client.tenures.items()):
                server, known = tenures.setdefault(timeline, (client.server, Tenure()))
                known.add(tenure.last_sent, tenure.first_received)
                if server is not client.server:
                    found.append(f"timeline {timeline}: {server} and {client.server} acknowledged on it")
        ordered = sorted(tenures)
        for i, earlier in enumerate(ordered):
            for later in ordered[i + 1:]:
                (old, before), (new, after) = tenures[earlier], tenures[later]
                if before.last_sent > after.first_received:
                    found.append(f"{old} acknowledged on timeline {earlier} {before.last_sent - after.first_received:.3f} s"
                                 f" after {new} had on timeline {later}")
        return found
