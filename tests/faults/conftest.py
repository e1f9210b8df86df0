"""Fixtures of the fault tests, and how many of them run at the same time."""

import inspect
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest

from tests.conftest import failed
from tests.faults.lab import Lab

AT_ONCE = 6  # scenarios; most of their time is waiting


@pytest.fixture(scope="session")
def shared_lab():
    with Lab() as lab:
        lab.hire(concurrency=8).hired_by = None
        yield lab


@pytest.fixture
def lab(shared_lab):
    """A lab that many scenarios share; who breaks its store needs one of their own."""
    return shared_lab


@pytest.fixture(autouse=True)
def logs_of_failures(request):
    """The ends of all logs of the labs that are open, where a test fails."""
    yield
    if failed(request):
        for lab in list(Lab.open):
            print(lab.logs(20))


# --- Many at once ---------------------------------------------------------------------


class Together:
    """Runs the tests marked `together` of a session at once, each in a thread.

    Their only fixtures are of the session; what each did is told when it is its turn.
    """

    def __init__(self):
        self.futures = None
        self.pool = ThreadPoolExecutor(AT_ONCE)

    def outcome(self, item):
        if self.futures is None:
            items = [i for i in item.session.items if i.get_closest_marker("together")]
            self.futures = {i.nodeid: self.begin(i, item._request) for i in items}
        return self.futures[item.nodeid].result()

    def begin(self, item, request):
        callspec = getattr(item, "callspec", None)
        given = dict(callspec.params) if callspec else {}
        for name in inspect.signature(item.obj).parameters:
            if name not in given:
                given[name] = request.getfixturevalue(name)
        return self.pool.submit(self.call, item.obj, given)

    def call(self, test, given):
        try:
            test(**given)
        finally:
            given["lab"].dismiss()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if pyfuncitem.get_closest_marker("together"):
        together.outcome(pyfuncitem)
        return True
    return None


together = Together()

# --- What was measured ----------------------------------------------------------------

measurements = {}
lock = threading.Lock()


@pytest.fixture(scope="session")
def measure():
    """`measure("what", seconds, limit)` holds a bound, and keeps it for the docs."""

    def measure(what, seconds, limit):
        with lock:
            measurements.setdefault(what, []).append((round(seconds, 2), limit))
        assert seconds <= limit, f"{what}: {seconds:.2f} s, at most {limit:g} s"

    return measure


def pytest_terminal_summary(terminalreporter):
    if not measurements:
        return
    terminalreporter.section("measured")
    for what, values in sorted(measurements.items()):
        seconds, limit = [seconds for seconds, _ in values], values[0][1]
        terminalreporter.line(
            f"{median(seconds):7.2f} s, worst {max(seconds):6.2f} s of {limit:5.1f} s: "
            f"{what}"
        )
    if path := os.environ.get("FAULTS_REPORT"):
        Path(path).write_text(json.dumps(measurements, indent=1, sort_keys=True))
