"""Fixtures of the fault tests, and how many of them run at the same time."""

import asyncio
import inspect
import json
import os
import threading
from collections import defaultdict
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import pytest

from tests.conftest import failed
from tests.faults.lab import REAL, Lab
from tests.faults.sites import Sites

AT_ONCE = 6  # scenarios; most of their time is waiting


@pytest.fixture(scope="session")
def shared_lab():
    with Lab() as lab:
        lab.hire(concurrency=8).hired_by = None
        yield lab


@pytest.fixture(scope="session")
def impatient_lab(shared_lab):
    """One in which every message that is not acknowledged comes again after 5 s."""
    if not REAL:
        yield shared_lab
        return
    with Lab(env={"FAULTS_VISIBILITY_TIMEOUT": "5"}) as lab:
        yield lab


@pytest.fixture(scope="session")
def sites():
    sites = Sites()
    yield sites
    sites.close()


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
    """Runs the tests marked `together` beside all others, each in a thread.

    Those of one group, as in `together("daphne")`, come one after another. Their
    fixtures are of the session, their lab the shared one or `together(lab=...)`; what
    each did is told when it is its turn. One with `alone=True` has its turn as ever.
    """

    def __init__(self):
        self.begun = False
        self.futures = {}
        self.places = threading.Semaphore(AT_ONCE)
        self.groups = defaultdict(threading.Lock)

    def begin(self, items, request):
        self.begun = True
        for item in items:
            mark = item.get_closest_marker("together")
            if mark and not mark.kwargs.get("alone"):
                group = self.groups[mark.args[0]] if mark.args else nullcontext()
                given = self.fixtures(item, request, mark.kwargs.get("lab"))
                test = inspect.unwrap(item.obj)
                future = self.futures[item.nodeid] = Future()
                # A daemon: a session that was stopped does not wait for the rest.
                threading.Thread(
                    target=self.call, args=(future, test, given, group), daemon=True
                ).start()

    def fixtures(self, item, request, lab):
        callspec = getattr(item, "callspec", None)
        given = dict(callspec.params) if callspec else {}
        for name in inspect.signature(item.obj).parameters:
            if name not in given:
                fixture = lab or "shared_lab" if name == "lab" else name
                given[name] = request.getfixturevalue(fixture)
        return given

    def call(self, future, test, given, group):
        try:
            with group, self.places:
                future.set_result(self.outcome(test, given))
        except BaseException as error:  # pytest's own are no Exceptions
            future.set_exception(error)

    def outcome(self, test, given):
        try:
            done = test(**given)
            if inspect.iscoroutine(done):
                asyncio.run(done)
        finally:
            if "lab" in given:
                given["lab"].dismiss()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not together.begun:
        together.begin(pyfuncitem.session.items, pyfuncitem._request)
    if future := together.futures.get(pyfuncitem.nodeid):
        future.result()
        return True
    return None


together = Together()

# --- What was measured ----------------------------------------------------------------

measured = defaultdict(list)  # what: (seconds, limit)
outcomes = {}  # test: passed, failed or skipped
lock = threading.Lock()


@pytest.fixture(scope="session")
def measure():
    """`measure("what", seconds, limit)` holds a bound, and keeps it for the docs."""

    def measure(what, seconds, limit):
        with lock:
            measured[what].append((round(seconds, 2), limit))
        assert seconds <= limit, f"{what}: {seconds:.2f} s, at most {limit:g} s"

    return measure


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        outcomes[report.nodeid.rpartition("/")[2]] = report.outcome


def pytest_terminal_summary(terminalreporter):
    if measured:
        terminalreporter.section("measured")
    for what, values in sorted(measured.items()):
        seconds = [seconds for seconds, _ in values]
        terminalreporter.line(
            f"{median(seconds):7.2f} s, worst {max(seconds):6.2f} s "
            f"of {values[0][1]:5.1f} s: {what}"
        )
    if path := os.environ.get("FAULTS_REPORT"):
        report = {"real": REAL, "measured": measured, "outcomes": outcomes}
        Path(path).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
