"""One cluster on hosts, shared by the tests as long as none fails."""
import pathlib
import random
import sys

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parents[1] / "cluster")]

from hosts import Hosts  # noqa: E402
from limit import limit, pytest_configure  # noqa: E402, F401
from cluster import BUILD  # noqa: E402


class Shared:
    def __init__(self):
        self.hosts = None

    def found(self, *shape, **options):
        """New ones, in place of those before: there is one network. Nobody waits for them to be founded."""
        self.drop()
        # A rewind waits for the new primary's first checkpoint, which is else spread over seconds.
        self.hosts = Hosts(*shape, postgresql={"parameters": {"checkpoint_completion_target": "0"}}, **options).start()
        return self.hosts

    def take(self):
        if self.hosts is None:
            self.found(3)
        if self.hosts.clients is None:
            self.hosts.wait_redundant(60)
            self.hosts.begin_clients()
        return self.hosts

    def drop(self):
        hosts, self.hosts = self.hosts, None
        if hosts is not None:
            hosts.close()


@pytest.fixture(scope="session")
def shared():
    one = Shared()
    yield one
    one.drop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test says what its members say, its logs are kept, and the next one gets new hosts."""
    report = (yield).get_result()
    shared = item.funcargs.get("shared")
    if report.failed and shared is not None and shared.hosts is not None:
        report.sections.append(("the hosts", shared.hosts.describe()))
        shared.hosts.keep_logs(BUILD / "test-logs" / item.name.replace("/", "-"))
        shared.drop()


@pytest.fixture
def hosts(shared, limit):
    """Three members, each on a host, all streaming; clients write to each. Afterwards they must be so again, and nothing
    may have been violated."""
    three = shared.take()
    three.wait_redundant(60)
    three.wait_writes()
    yield three
    if shared.hosts is three:
        three.wait_redundant(60)
        three.wait_writes()
        assert not three.violations()


@pytest.fixture
def rng(request):
    return random.Random(request.node.name)
