"""A person looks at one page after another while things break: it says what is true."""

import asyncio
import itertools
import signal

import pytest
from playwright.async_api import expect

from tests.browser.conftest import bar, part, press_start, runs_of, verb
from tests.client import FINISHED
from tests.conftest import chromium
from tests.faults.lab import REAL, VISIBILITY_TIMEOUT
from tests.faults.sites import FaultySite

PATIENCE = 100_000  # ms

# Everything that the page's own bar has shown since it was opened.
RECORD = """
window.shown = [];
document.addEventListener("progress:change", ({ target, detail }) => {
  if (target.closest("main")) window.shown.push(detail);
});
"""


class Person:
    """A visitor with a browser, who looks at one run after another."""

    def __init__(self, lab, page):
        self.lab, self.page = lab, page

    async def look_at(self, task, begun=True, **kwargs):
        """The page of a new run of theirs, once it has `begun`."""
        await self.page.goto("/")
        cookies = {c["name"]: c["value"] for c in await self.page.context.cookies()}
        (mine,) = (value for name, value in cookies.items() if "progress" in name)
        owner = f"a:{mine.rpartition(':')[0]}"
        self.run = await asyncio.to_thread(self.lab.start, task, owner=owner, **kwargs)
        if begun:
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

    async def sees_why(self, text, state="failed"):
        """It is over, and the page says for what reason."""
        await self.sees(text, name="error", state=state)

    async def has_seen_nothing_older(self):
        """Whatever came: no attempt again, no lower percent, nothing after the end.
        Returns how much that was; a page that was opened late has nothing to hear."""
        shown = await self.page.evaluate("window.shown")
        for a, b in itertools.pairwise(e for e in shown if e["epoch"]):
            assert b["attempt"] >= a["attempt"], (a, b)
            # The same end may be told twice.
            assert a["state"] not in FINISHED or a["rev"] == b["rev"], (a, b)
            if b["attempt"] == a["attempt"] and a["percent"] is not None:
                assert (b["percent"] or 0) >= a["percent"], (a, b)
        return len(shown)


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


async def it_kills_its_process_every_time(person):
    await person.look_at("kills_itself")
    await person.sees_why("Its worker stopped 3 times.")


async def it_takes_longer_than_it_may(person):
    await person.look_at("over_the_hard_limit")
    await person.sees_why("It took longer than it may (1 s).")


async def it_is_rejected(person):
    await person.look_at("rejects")
    await person.sees_why("The task rejected its message.")


async def it_expires(person):
    (worker,) = person.lab.workers
    worker.freeze()
    await person.look_at("expires", begun=False)
    await person.sees(state="queued")
    await asyncio.sleep(0.3)  # what expires, expires with time
    worker.thaw()
    await person.sees_why("It was not begun in time.", state="cancelled")


async def the_store_is_away(person):
    await person.look_at("gated")
    await person.sees_it_move()
    person.lab.store.down()
    await person.sees("The server has no news now", connection="unavailable")
    person.lab.store.restore()
    await person.sees(connection="live")
    await person.sees_it_move()
    await person.sees_the_end()


async def the_broker_is_away_at_start(person):
    """The page says so, and goes on trying with the same key."""
    before = await runs_of(person.page)
    person.lab.broker.down()
    await press_start(person.page, 100)
    wrong = person.page.locator("start-button [data-error='']")
    await expect(wrong).to_contain_text("cannot be reached", timeout=PATIENCE)
    person.lab.broker.restore()
    await person.sees(state="succeeded")
    await expect(wrong).to_be_empty()
    assert len(await runs_of(person.page)) == len(before) + 1


async def a_worker_is_told_to_stop(person):
    """As a deployment does it: its body goes on in the next one."""
    lab = person.lab
    (worker,) = lab.workers
    await asyncio.to_thread(lab.fire, worker)
    worker = await asyncio.to_thread(lab.hire, env={"REMAP_SIGTERM": "SIGQUIT"})
    await person.look_at("gated")
    await person.sees_it_move()
    worker.send(signal.SIGTERM)
    await person.sees("Its worker stopped", state="waiting")
    await asyncio.to_thread(worker.wait)
    await asyncio.to_thread(lab.fire, worker)
    await asyncio.to_thread(lab.hire)
    await person.sees(state="running")
    await person.sees_it_move()
    await person.sees_the_end()


async def a_frozen_worker_wakes_after_the_next_attempt_began(person):
    lab = person.lab
    (first,) = lab.workers
    await person.look_at("gated")
    await person.sees_it_move()
    first.freeze()
    await person.sees(state="lost")
    await asyncio.to_thread(lab.hire)
    await asyncio.to_thread(person.run.until, "running", attempt=2, timeout=150)
    await person.sees(state="running")
    first.thaw()
    old = await asyncio.to_thread(person.run.until_body_ended)
    assert old["by"] == "Superseded"
    await person.sees_it_move()
    await person.sees_the_end()
    await asyncio.to_thread(lab.fire, first)


async def no_worker_knows_it(person):
    lab = person.lab
    (worker,) = lab.workers
    await asyncio.to_thread(lab.fire, worker)
    older = {"FAULTS_WITHOUT": "unknown_to_workers"}
    await asyncio.to_thread(lab.hire, env=older)
    await person.look_at("unknown_to_workers", begun=False)
    await person.sees_why("No worker knows this task.")


async def store_and_history_are_away(person):
    await person.look_at("gated")
    await person.sees_it_move()
    with person.lab.no_database():
        person.lab.store.down()
        await person.sees("The server has no news now", connection="unavailable")
        answer = await person.page.context.request.get(
            f"/progress/runs/{person.run.id}/"
        )
        assert answer.status == 503  # not forbidden, and nobody is let in
        person.lab.store.restore()
    await person.sees(connection="live")
    await person.sees_the_end()


async def the_browser_is_offline(person):
    await person.look_at("gated")
    await person.sees_it_move()
    await person.page.context.set_offline(True)
    await person.sees("This browser is offline", connection="offline")
    person.run.kill_child()
    await asyncio.to_thread(person.run.until, "running", attempt=2)
    await asyncio.sleep(60 if REAL else 5)  # the length is what is tested
    await person.sees(connection="offline")
    await person.page.context.set_offline(False)
    await person.sees("2", name="attempt", connection="live")
    await person.sees_it_move()
    await person.sees_the_end()


async def messages_are_mistreated(person):
    lab = person.lab
    await asyncio.to_thread(lab.web.stop, signal.SIGKILL)
    lab.web_env["FAULTS_LAYER"] = "mischief"
    await asyncio.to_thread(lab.web.start)
    await person.look_at("steps", n=300)
    await person.sees(state="succeeded")


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


# In the last scenario Valkey, which is the broker as well, has lost its data.
DAY = (
    *(a_child_dies, a_child_dies_for_good, a_worker_dies, a_worker_freezes),
    *(it_is_cancelled_while_it_is_lost, it_is_tried_again),
    *(it_kills_its_process_every_time, it_takes_longer_than_it_may, it_is_rejected),
    *(it_expires, the_store_is_away, the_broker_is_away_at_start),
    *(the_web_process_dies, the_layer_is_deaf, valkey_is_restarted_and_emptied),
)
NIGHT = (
    *(a_worker_is_told_to_stop, a_frozen_worker_wakes_after_the_next_attempt_began),
    *(no_worker_knows_it, store_and_history_are_away, the_browser_is_offline),
    messages_are_mistreated,
)


@pytest.mark.together
@pytest.mark.parametrize(
    "scenarios",
    [
        pytest.param(DAY, id="day"),
        pytest.param(NIGHT, id="night", marks=pytest.mark.nightly),
    ],
)
async def test_the_page_says_what_is_true(scenarios):
    site = FaultySite(
        layer="apart", concurrency=2, visibility_timeout=VISIBILITY_TIMEOUT
    )
    with site as lab:
        async with chromium() as browser:
            context = await browser.new_context(base_url=lab.url, locale="en")
            await context.add_init_script(RECORD)
            page = await context.new_page()
            person = Person(lab, page)
            seen = 0
            for scenario in scenarios:
                print(scenario.__name__)
                await scenario(person)
                seen += await person.has_seen_nothing_older()
            assert seen > len(scenarios)
