"""A client that writes numbered rows without a pause and keeps every acknowledgement with its time.

It connects as an application with a list of hosts would, but bounds each attempt and each write itself, so that what
hangs costs it a known time.
"""
import select
import threading
import time

import psycopg2
import psycopg2.extensions

CONNECT_TIMEOUT = 0.5  # a host that is frozen answers nothing
WRITE_TIMEOUT = 1.0  # then it tries the next one; whether that row is in, it does not know
UNSURE = "might not have been replicated"  # PostgreSQL's warning when a wait was cancelled: no acknowledgement


class TooSlow(Exception):
    pass


def finish(connection, timeout):
    """Drives a non-blocking connection until it is done."""
    deadline = time.monotonic() + timeout
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TooSlow()
        reading = [connection] if state == psycopg2.extensions.POLL_READ else []
        writing = [connection] if state == psycopg2.extensions.POLL_WRITE else []
        select.select(reading, writing, [], left)


class Ledger:
    def __init__(self, conninfos, pause=0.005):
        self.conninfos = conninfos  # one a data member
        self.pause = pause
        self.acknowledged = []  # (number, when), in order
        self.last_error = ""
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
        return bool(self.acknowledged) and self.acknowledged[-1][1] > moment

    def lost(self, connection):
        """Numbers that were acknowledged and are not there."""
        acknowledged = [number for number, _ in list(self.acknowledged)]
        assert acknowledged, f"the ledger never got an acknowledgement: {self.last_error}"
        with connection.cursor() as cursor:
            cursor.execute("SELECT number FROM ledger")
            there = {number for number, in cursor.fetchall()}
        return [number for number in acknowledged if number not in there]

    # ---- the thread ----

    def _connect(self):
        for conninfo in self.conninfos:
            connection = None
            try:
                connection = psycopg2.connect(conninfo + " target_session_attrs=read-write", async_=True)
                finish(connection, CONNECT_TIMEOUT)
                return connection
            except (psycopg2.Error, TooSlow) as error:
                self.last_error = str(error) or "timed out"
                if connection is not None:
                    connection.close()
        return None

    def _write(self, connection, number):
        del connection.notices[:]
        cursor = connection.cursor()  # the connection does not hold it
        cursor.execute("INSERT INTO ledger (number) VALUES (%s)", (number,))
        finish(connection, WRITE_TIMEOUT)
        if not any(UNSURE in notice for notice in connection.notices):
            self.acknowledged.append((number, time.monotonic()))

    def _run(self):
        connection, number = None, 0
        while not self._stop.is_set():
            try:
                connection = connection or self._connect()
                if connection is not None:
                    number += 1
                    self._write(connection, number)
            except (psycopg2.Error, TooSlow) as error:
                self.last_error = str(error) or "timed out"
                connection.close()
                connection = None
                continue
            self._stop.wait(self.pause)
        if connection is not None:
            connection.close()
