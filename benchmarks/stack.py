"""The stack of the tests, with peers beside it and others who load it.

Viewers and the desk are processes of their own, which share nothing with what they
measure but the machine.
"""

import contextlib
import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import httpx

from benchmarks import desk, load, tasks
from tests.ports import free_port
from tests.stack import Stack, Web

SERVERS = ("daphne", "uvicorn")
UNLIMITED = 10**9
ENV = {
    "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
    "LOG_LEVEL": "WARNING",
    "PROGRESS_STARTS_PER_MINUTE": str(UNLIMITED),
    "PROGRESS_STARTS_PER_MINUTE_ALL": str(UNLIMITED),
    "PROGRESS_UNFINISHED_RUNS": str(UNLIMITED),
}
SITE, FORWARD = "benchmarks.asgi:app", "benchmarks.forward:app"


class Bench(Stack):
    """`with Bench() as bench:` has Valkey, workers, a desk, and `bench.serve()`."""

    def __init__(self, *, env=None, **options):
        super().__init__(server=None, env=ENV | (env or {}), **options)
        self.webs = []
        self.pools = contextlib.ExitStack()

    def serve(self, server, application=SITE):
        """A new web process."""
        port = free_port()
        log = self.directory / f"{server}-{port}.log"
        web = Web(log, server, port, self.env | {"PORT": str(port)}, application)
        self.webs.append(web)
        return web.start()

    def begin(self):
        """Let all that wait for it start; in how many seconds that will be."""
        self.redis.set(tasks.START, desk.ticks() + int(2e6 * tasks.LOOK))
        return 2 * tasks.LOOK

    def process(self, initializer=None, *arguments):
        """A pool of one process, which has not inherited anything."""
        return self.pools.enter_context(
            ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), initializer, arguments
            )
        )

    @functools.cached_property
    def desk(self):
        """`bench.desk(function, ...)`: a function of desk.py, with the site's setup."""
        submit = self.process(desk.enter, self.env).submit
        return lambda function, *args: submit(function, *args).result()

    @functools.cached_property
    def viewers(self):
        """`bench.viewers(function, ...)`: a function of load.py."""
        submit = self.process(load.run).submit
        return lambda function, *args: submit(function, *args).result()

    def close(self):
        self.pools.close()
        for web in self.webs:
            web.kill()
        super().close()


def visitor(web):
    """A visitor's cookie."""
    (cookie,) = (c for c in httpx.get(web.url).cookies.jar if "viewer" in c.name)
    return f"{cookie.name}={cookie.value}"


def cpu(pid):
    """Seconds of CPU that all threads of a process have had."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def memory(pid):
    """What a process holds that is its own, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
