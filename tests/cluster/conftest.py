"""Clusters for tests, and what one wants to know about those that failed."""
import signal

import pytest

from cluster import BUILD, Cluster
from limit import limit, pytest_configure  # noqa: F401


class Clusters:
    """Those of one test, and the one that tests share."""

    def __init__(self):
        self.own = []
        self.shared = None
        self.shared_is_hurt = False

    def make(self, *args, **options):
        self.own.append(Cluster(*args, **options))
        return self.own[-1]

    def take_shared(self):
        if self.shared_is_hurt:
            self.drop_shared()
        if self.shared is None:
            self.shared = Cluster(3).start()
        return self.shared

    def drop_shared(self):
        cluster, self.shared, self.shared_is_hurt = self.shared, None, False
        if cluster is not None:
            cluster.close()

    def close_own(self):
        while self.own:
            self.own.pop().close()


@pytest.fixture(scope="session")
def clusters():
    every = Clusters()
    yield every
    every.close_own()
    every.drop_shared()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test says what its members say, and its logs are kept."""
    report = (yield).get_result()
    clusters = item.funcargs.get("clusters")
    if not report.failed or clusters is None:
        return
    signal.alarm(0)
    in_use = list(clusters.own)
    if "trio" in item.fixturenames and clusters.shared is not None:
        in_use.append(clusters.shared)
        clusters.shared_is_hurt = True
    for cluster in in_use:
        report.sections.append(("the cluster", cluster.describe()))
        cluster.keep_logs(BUILD / "test-logs" / item.name.replace("/", "-"))


@pytest.fixture
def make_cluster(clusters, limit):
    """Makes clusters that are gone after the test: make_cluster(data=3, witness=False, **options)."""
    yield clusters.make
    signal.alarm(30)
    clusters.close_own()


@pytest.fixture
def trio(clusters, limit):
    """Three members, founded and fully redundant. Tests share them as long as none fails: that they heal is part of
    what each shows."""
    cluster = clusters.take_shared()
    cluster.wait_redundant(60)
    yield cluster
    ended = [member for member in cluster.members if not member.runs()]
    clusters.shared_is_hurt |= bool(ended)
    assert not ended, f"ttorchd of {ended} has ended by itself"


@pytest.fixture
def ledger(trio):
    """A client of `trio` that writes all the time."""
    writer = trio.ledger()
    yield writer
    writer.stop()
