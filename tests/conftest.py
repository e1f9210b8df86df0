"""Fixtures for all tests: servers, the whole stack, a browser."""

import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest
import pytest_asyncio
from django.conf import settings
from django.utils import translation
from xdist.scheduler import LoadScopeScheduling

from tests.client import Visitor
from tests.stack import Stack, Valkey

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
NO_CHROMIUM = (
    "Chromium is missing: install it (on Debian: apt install chromium), or set "
    "CHROMIUM to its path"
)


def pytest_configure():
    # A run that is told to end takes its servers along, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class ByFolder(LoadScopeScheduling):
    """Of several processes, one takes all tests of a folder, which share its servers.

    Those in a browser and from end to end take longest and wait most, so theirs are
    divided by file.
    """

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        return file if folder.endswith(("browser", "e2e")) else folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return ByFolder(config, log)


def pytest_collection_modifyitems(items):
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)
    # What breaks things stays in one process and takes longest, so it begins first.
    items.sort(key=lambda item: "faults" not in item.path.parts)


def pytest_sessionfinish(session):
    """In CI a skipped test is a failure: it would hide what was not tested."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def own_language():
    """What a visitor speaks ends with a test: a request leaves it to its thread."""
    yield
    translation.deactivate()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory):
    """The Valkey server that the tests' settings name, for in-process tests."""
    port = int(settings.REDIS_URL.rpartition(":")[2].partition("/")[0])
    server = Valkey(tmp_path_factory.mktemp("valkey"), port)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def store_server(valkey):
    """The same server, emptied."""
    valkey.flush()
    return valkey


@pytest.fixture(scope="session")
def shared_stack():
    with Stack(concurrency=4) as stack:
        yield stack


@pytest.fixture
def stack(shared_stack, request):
    """The site, running; tests that break it make a `Stack` of their own instead."""
    yield shared_stack
    if failed(request):
        print(shared_stack.logs())


@pytest_asyncio.fixture
async def visitor(stack):
    async with Visitor(stack.url) as visitor:
        yield visitor


@pytest_asyncio.fixture
async def stranger(stack):
    """A second visitor, who owns nothing of the first."""
    async with Visitor(stack.url) as stranger:
        yield stranger


@contextlib.asynccontextmanager
async def chromium():
    """A Chromium; without one the test is skipped, in CI it fails."""
    if not Path(CHROMIUM).is_file():
        if os.environ.get("CI"):
            pytest.fail(NO_CHROMIUM)
        pytest.skip(NO_CHROMIUM)
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",  # tests may run as root, in a container
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-default-apps",
                "--disable-sync",
                "--no-first-run",
            ],
        )
        yield browser
        await browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    setattr(item, f"report_{report.when}", report)
    # Between the processes of a run goes UTF-8, and some tests print what is none.
    report.sections = [
        (name, text.encode(errors="replace").decode()) for name, text in report.sections
    ]
    return report


def failed(request):
    report = getattr(request.node, "report_call", None)
    return report is not None and report.failed
