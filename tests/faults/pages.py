"""
Pages as a browser shows them, many in one process: each has a socket that comes back,
and remembers what it was shown.
"""

import asyncio
import contextlib
import itertools
import random
import time
import uuid
from typing import ClassVar

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.client import Closed, Visitor

FINISHED = {"succeeded", "failed", "cancelled"}
DELAYS = [0.5, 1.0, 2.0, 4.0]  # seconds, the longest wait before each try
UNREACHABLE = (
    *(OSError, InvalidHandshake, InvalidMessage, TimeoutError),
    *(ConnectionClosed, Closed),
)


class Page:
    """A page that shows some runs; `await page.open()` until `page.close()`."""

    options: ClassVar = {}  # of its sockets

    def __init__(self, visitor, runs=(), start=None):
        self.visitor = visitor
        self.runs = set(runs)
        self.start = start  # (task, params): what its START was pressed for
        self.key = uuid.uuid4().hex
        self.shown = {}  # run: its envelopes in their order, with when they came
        self.errors = []
        self.opened = []  # when a socket was opened
        self.codes = []
        self.changed = asyncio.Condition()
        self.socket = None

    async def open(self):
        self.task = asyncio.create_task(self._live())
        return self

    async def add(self, run):
        """Show one more run, from now on."""
        self.runs.add(run)
        if self.socket:
            with contextlib.suppress(*UNREACHABLE):
                await self.socket.send("watch", run=run)

    async def close(self):
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def _live(self):
        tries = 0
        while True:
            try:
                async with self.visitor.socket(**self.options) as socket:
                    self.opened.append(time.monotonic())
                    self.socket = socket
                    await self._ask(socket)
                    while True:
                        message = await socket.next(timeout=60)
                        tries = 0
                        await self._show(message)
            except UNREACHABLE as error:
                self.codes.append(getattr(error, "code", None))
            self.socket = None
            await asyncio.sleep(random.uniform(0, DELAYS[min(tries, 3)]))
            tries += 1

    async def _ask(self, socket):
        if self.start and not self.runs:
            task, params = self.start
            await socket.send("start", task=task, params=params, key=self.key, ref="s")
        for run in list(self.runs):
            if not self.finished(run):
                await socket.send("watch", run=run)

    async def _show(self, message):
        async with self.changed:
            if message["type"] == "started":
                self.runs.add(message["run"])
            elif message["type"] == "run":
                log = self.shown.setdefault(message["run"], [])
                log.append((time.monotonic(), message))
            elif message["type"] == "error":
                self.errors.append(message)
            self.changed.notify_all()

    # --- What it shows ---

    def last(self, run):
        log = self.shown.get(run)
        return log[-1][1] if log else {}

    def finished(self, run):
        return self.last(run).get("state") in FINISHED

    def told(self, run):
        """When this page had sockets, and what it was told of a run, for a report."""
        log = [
            (round(at, 1), e["state"], e["rev"]) for at, e in self.shown.get(run, ())
        ]
        return f"{run} {log[-3:]}, opened {[round(t, 1) for t in self.opened]}"

    def since(self, moment, run):
        """What was shown of a run after a moment (monotonic)."""
        return [e for at, e in self.shown.get(run, ()) if at > moment]

    async def until(self, condition, timeout=60):
        async with self.changed:
            try:
                async with asyncio.timeout(timeout):
                    await self.changed.wait_for(lambda: condition(self))
            except TimeoutError:
                last = {run: self.last(run) for run in self.runs}
                raise AssertionError(
                    f"not within {timeout} s; {self.codes}; {self.errors[-3:]}; {last}"
                ) from None

    def assert_never_back(self):
        """Within an attempt percent never falls, and within an epoch no revision. (Of
        a run that the store has lost, nobody may know the percent any more.)"""
        for log in self.shown.values():
            for (_, a), (_, b) in itertools.pairwise(log):
                forgotten = b["percent"] is None and not b["epoch"]
                if a["attempt"] == b["attempt"] and a["percent"] and not forgotten:
                    assert (b["percent"] or 0) >= a["percent"], (a, b)
                if a["epoch"] == b["epoch"]:
                    assert b["rev"] >= a["rev"], (a, b)


def essence(envelope):
    """What two looks at the same end have in common."""
    moving = {"now", "seen"}
    return {name: v for name, v in envelope.items() if name not in moving}


@contextlib.asynccontextmanager
async def arrived(url, number=1):
    """Visitors, each of which is another viewer."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Visitor(url)) for _ in range(number)]


@contextlib.asynccontextmanager
async def opened(pages):
    try:
        for page in pages:
            await page.open()
        yield pages
    finally:
        await asyncio.gather(*(page.close() for page in pages))


async def owner_of(lab, visitor):
    """The name under which a visitor starts runs."""
    value = next(c.value for c in visitor.http.cookies.jar if "progress" in c.name)
    return f"a:{value.rpartition(':')[0]}"


async def healthy(url):
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{url}/healthz")).status_code == 200
