"""Writes go to the primary, reads to a standby that has what the reader has written."""
import random
import time

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

PATIENCE = 10  # seconds that a request waits for a primary
AGAIN = 0.1  # before the same primary is tried again
CATCH_UP = 0.1  # seconds that a read waits for a standby to replay
LOOK = 0.01  # between two looks at what it has replayed: PostgreSQL wakes nobody for that

# A host that is gone without a word is given up in about 4 seconds.
CONNECTION = {"connect_timeout": 3, "tcp_user_timeout": 4000,
              "keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 3}

# Going down or coming up, not the primary, in conflict with replay or with another transaction.
PASSING = ("57P", "25006", "40001", "40P01")


class Unavailable(Exception):
    """There was no primary for PATIENCE."""


def passes(error):
    """Another try, maybe on another server, may succeed."""
    return error.connection_invalidated or error.orig.pgcode is None or error.orig.pgcode.startswith(PASSING)


class Databases:
    def __init__(self, follower, url):
        """`url` names driver, role and database; host and port come from the follower."""
        self._follower, self._url, self._engines = follower, make_url(url), {}

    def write(self, work):
        """Runs work(session) in a transaction on the primary. Returns its result, and the position in the WAL that a
        standby must have replayed to show it.

        If the connection breaks, be it in COMMIT, whose outcome is then unknown, work is run again on whoever is the
        primary by then. So it must do no harm when run twice."""

        def commit(session):
            result = work(session)
            session.commit()
            return result, session.scalar(text("SELECT pg_current_wal_flush_lsn()"))

        return self._on_primary(commit)[0]

    def read(self, work, lsn=None):
        """Runs work(session) on a standby that has replayed up to lsn, or else on the primary. Returns its result, and
        the name of the member that gave it."""
        standbys = self._follower.now.standbys
        for standby in random.sample(standbys, len(standbys)):
            try:
                with self._session(standby) as session:
                    if has_replayed(session, lsn):
                        return work(session), standby.name
            except DBAPIError as error:
                if not passes(error):
                    raise
        return self._on_primary(work)

    def _on_primary(self, work):
        deadline = time.monotonic() + PATIENCE
        while self._follower.wait(lambda now: now.primary, deadline - time.monotonic()):
            primary = self._follower.now.primary
            if primary is None:  # gone again
                continue
            try:
                with self._session(primary) as session:
                    return work(session), primary.name
            except DBAPIError as error:
                if not passes(error):
                    raise
            self._follower.wait(lambda now, failed=primary: now.primary != failed, AGAIN)
        raise Unavailable()

    def _session(self, server):
        """Of the server's pool, in which connections that have died meanwhile are replaced (pool_pre_ping)."""
        if server not in self._engines:
            url = self._url.set(host=server.host, port=server.port)
            self._engines[server] = create_engine(url, pool_pre_ping=True, connect_args=CONNECTION)
        return Session(self._engines[server], expire_on_commit=False)


def has_replayed(session, lsn):
    """Waits a little for it. At READ COMMITTED, the default, the statements that follow see what was replayed."""
    deadline = time.monotonic() + CATCH_UP
    while lsn is not None and not session.scalar(text("SELECT pg_last_wal_replay_lsn() >= :lsn"), {"lsn": lsn}):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK)
    return True
