"""Clusters for tests, and what one wants to know about those that failed."""
import signal

import pytest

from cluster import BUILD, Cluster
from limit import limit, pytest_configure  # noqa: F401


class Clusters:
    """Those of one test, and those that tests share until one of them fails."""

    def __init__(self):
        self.own = []
        self.shared = {}  # by name
        self.hurt = set()  # names: the next test that wants one gets a new one
        self.taken = set()  # names: by the test that runs

    def make(self, *args, **options):
        self.own.append(Cluster(*args, **options))
        return self.own[-1]

    def take(self, name, make, begin):
        """The shared one of this name; if there is none, or it is hurt: what `make` returns, after `begin` of it."""
        self.taken.add(name)
        if name in self.hurt:
            self.drop(name)
        if name not in self.shared:
            self.shared[name] = make()
            begin(self.shared[name])
        return self.shared[name]

    def drop(self, name):
        cluster = self.shared.pop(name, None)
        self.hurt.discard(name)
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
    for name in list(every.shared):
        every.drop(name)


@pytest.fixture(scope="module")
def of_file(clusters, request):
    """of_file(make, begin): a cluster that the tests of one file share, as `trio` is shared by all."""
    name = request.module.__name__
    yield lambda make, begin: clusters.take(name, make, begin)
    clusters.drop(name)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test says what its members say, and its logs are kept."""
    report = (yield).get_result()
    clusters = item.funcargs.get("clusters")
    if clusters is None:
        return
    if report.failed:
        signal.alarm(0)
        clusters.hurt |= clusters.taken
        for cluster in [*clusters.own, *(clusters.shared[name] for name in clusters.taken & set(clusters.shared))]:
            report.sections.append(("the cluster", cluster.describe()))
            cluster.keep_logs(BUILD / "test-logs" / item.name.replace("/", "-"))
    if call.when == "teardown":
        clusters.taken.clear()


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
    cluster = clusters.take("trio", lambda: Cluster(3), Cluster.start)
    cluster.wait_redundant(60)
    yield cluster
    ended = [member for member in cluster.members if not member.runs()]
    assert not ended, f"ttorchd of {ended} has ended by itself"


@pytest.fixture
def ledger(trio):
    """A client of `trio` that writes all the time."""
    writer = trio.ledger()
    yield writer
    writer.stop()
