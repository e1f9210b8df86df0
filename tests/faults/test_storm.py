"""Thousands of pages at once; by itself, for it takes all of the machine."""

import asyncio
import contextlib
import time
from typing import ClassVar

import pytest

from tests.faults.lab import within
from tests.faults.pages import Page, arrived, opened
from tests.faults.test_web import all_pages, is_finished, is_running, start

pytestmark = pytest.mark.nightly

STORM = 5000  # pages


class Glance(Page):
    """A page that costs little: five thousand logs, and what unpacks their messages,
    would take the machine from the server that is measured."""

    options: ClassVar = {"compression": None}

    async def _show(self, message):
        if message["type"] == "run":
            self.shown.pop(message["run"], None)
        await super()._show(message)


@pytest.mark.parametrize(
    ("server", "layer"),
    [("daphne", "pubsub"), ("uvicorn", "pubsub"), ("daphne", "core")],
)
async def test_thousands_come_at_once(server, layer, sites, measure):
    """And once more, when it has been killed: nobody meets an error of the server, and
    Redis has a few connections, not one a page."""
    with sites(server, layer) as lab:
        async with arrived(lab.url) as (visitor,):
            run = await start(lab, visitor, "gated", seconds=600)
            pages = [Glance(visitor, [run.id]) for _ in range(STORM)]
            since = time.monotonic()
            async with opened(pages), counting(lab.valkey.client) as connections:
                await all_pages(pages, is_running, timeout=240)
                measure(
                    f"{server}, {STORM} pages at once: all know",
                    time.monotonic() - since,
                    within(120),
                )
                await asyncio.to_thread(lab.web.kill)
                await asyncio.to_thread(lab.web.start)
                back = time.monotonic()
                await all_pages(pages, lambda p: p.since(back, run.id), timeout=240)
                measure(
                    f"{server} killed, {STORM} pages open: all back",
                    time.monotonic() - back,
                    within(120),
                )
                run.open()
                await all_pages(pages, is_finished, timeout=120)
        assert max(connections) < 100
        assert not {code for page in pages for code in page.codes} & {1011, 4403}
        errors = {error["code"] for page in pages for error in page.errors}
        assert errors <= {"unavailable"}  # for the moment of the crowd


@contextlib.asynccontextmanager
async def counting(redis):
    """How many clients Redis has, twice a second."""
    counts = []

    async def count():
        while True:
            info = await asyncio.to_thread(redis.info, "clients")
            counts.append(info["connected_clients"])
            await asyncio.sleep(0.5)

    task = asyncio.create_task(count())
    try:
        yield counts
    finally:
        task.cancel()
