"""Time limits, for each test by fixture `limit`; a conftest imports both functions.

What a test waits for is written as a usual machine needs it at most; a busy one gets PATIENCE times as long. How fast
things are is no question for a test, but for `./dev bench`.
"""
import signal

import pytest

PATIENCE = 3
LIMIT = 90


def pytest_configure(config):
    config.addinivalue_line("markers", f"limit(seconds): how long the test may take, instead of {LIMIT} s")


@pytest.fixture(autouse=True)
def limit(request):
    """No test hangs."""
    marker = request.node.get_closest_marker("limit")
    seconds = PATIENCE * (marker.args[0] if marker else LIMIT)

    def ring(_signal, _frame):
        raise TimeoutError(f"the test took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
