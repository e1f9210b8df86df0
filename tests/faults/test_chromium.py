"""A person looks at one page after another while things break: it says what is true."""

import asyncio
import signal

import pytest
from playwright.async_api import expect

from tests.browser.conftest import bar, part, verb
from tests.conftest import chromium
from tests.faults.sites import Site

PATIENCE = 100_000  # ms


class Person:
    """A visitor with a browser, who looks at one run after another."""

    def __init__(self, lab, page):
        self.lab, self.page = lab, page

    async def look_at(self, task, **kwargs):
        """The page of a new run of theirs, once it moves."""
        await self.page.goto("/")
        cookies = {c["name"]: c["value"] for c in await self.page.context.cookies()}
        (mine,) = (value for name, value in cookies.items() if "progress" in name)
        owner = f"a:{mine.rpartition(':')[0]}"
        self.run = await asyncio.to_thread(self.lab.start, task, owner=owner, **kwargs)
        await asyncio.to_thread(self.run.until_body)
        await self.page.goto(f"/runs/{self.run.id}/")

    async def sees(self, text="", name="line", **attributes):
        await expect(bar(self.page, **attributes)).to_be_visible(timeout=PATIENCE)
        if text:
            await expect(part(self.page, name)).to_contain_text(text, timeout=PATIENCE)

    async def sees_it_move(self):
        count = part(self.page, "count")
        before = await count.text_content()
        await expect(count).not_to_have_text(before or "", timeout=PATIENCE)

    async def sees_the_end(self, state="succeeded"):
        self.run.open()
        await self.sees(state=state)


async def a_child_dies(person):
    await person.look_at("gated")
    await person.sees(state="running")
    person.run.kill_child()
    await asyncio.to_thread(person.run.until, "running", attempt=2)
    await person.sees_the_end()


async def a_child_dies_for_good(person):
    await person.look_at("gated_early")
    await person.sees(state="running")
    person.run.kill_child()
    await person.sees(state="failed")
    await expect(bar(person.page)).to_contain_text("Its worker process died.")


async def a_worker_dies(person):
    lab = person.lab
    await person.look_at("gated")
    await person.sees(state="running")
    (worker,) = lab.workers
    await asyncio.to_thread(lab.fire, worker)
    await person.sees("No word from the worker for", state="lost")
    await asyncio.to_thread(lab.hire)
    await person.sees(state="running")
    await person.sees_the_end()


async def a_worker_freezes(person):
    (worker,) = person.lab.workers
    await person.look_at("gated")
    await person.sees(state="running")
    worker.freeze()
    await person.sees(state="lost")
    worker.thaw()
    await person.sees(state="running")
    await person.sees_the_end()


async def it_is_cancelled_while_it_is_lost(person):
    (worker,) = person.lab.workers
    await person.look_at("gated")
    worker.freeze()
    await person.sees(state="lost")
    await verb(person.page, "cancel").click()
    await person.sees(state="cancelled")
    worker.thaw()
    await asyncio.to_thread(person.run.until_body_ended)
    await person.sees(state="cancelled")


async def it_is_tried_again(person):
    await person.look_at("retries_once", countdown=3)
    await person.sees(state="waiting")
    await person.sees(state="succeeded")


async def the_web_process_dies(person):
    await person.look_at("gated")
    await person.sees(connection="live")
    await asyncio.to_thread(person.lab.web.stop, signal.SIGKILL)
    await person.sees("The server cannot be reached", connection="unreachable")
    await asyncio.to_thread(person.lab.web.start)
    await person.sees(connection="live")
    await person.sees_the_end()


async def valkey_is_restarted_and_emptied(person):
    await person.look_at("gated")
    for empty in (False, True):
        await person.sees_it_move()
        await asyncio.to_thread(person.lab.valkey.restart, empty)
        await person.sees_it_move()
    await person.sees_the_end()


async def the_layer_is_deaf(person):
    await person.look_at("gated")
    await person.sees_it_move()
    person.lab.proxy.blackhole()
    await person.sees_it_move()
    await person.sees_the_end()
    person.lab.mend()


@pytest.mark.together
async def test_the_page_says_what_is_true():
    """In the last scenario Valkey, which is the broker as well, has lost its data."""
    with Site(concurrency=2) as lab:
        async with chromium() as browser:
            context = await browser.new_context(base_url=lab.url, locale="en")
            page = await context.new_page()
            person = Person(lab, page)
            for scenario in (
                *(a_child_dies, a_child_dies_for_good, a_worker_dies, a_worker_freezes),
                *(it_is_cancelled_while_it_is_lost, it_is_tried_again),
                *(the_web_process_dies, the_layer_is_deaf),
                valkey_is_restarted_and_emptied,
            ):
                print(scenario.__name__)
                await scenario(person)
