"""<task-progress> in a page: what it writes, and what it leaves alone."""

import json

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.browser.conftest import RECEIVE, bar, part, start, verb

OBSERVE = """() => {
  window.touched = [];
  new MutationObserver((list) => {
    for (const { target, attributeName } of list) {
      window.touched.push(target.dataset?.part ?? attributeName);
    }
  }).observe(document.querySelector("task-progress"), {
    attributes: true, characterData: true, childList: true, subtree: true,
  });
}"""

# Elapsed and remaining move by themselves.
MOVING = {"elapsed", "remaining"}


async def touched(page):
    return set(await page.evaluate("window.touched")) - MOVING


@pytest_asyncio.fixture(loop_scope="session")
async def running(page):
    """A run that goes on for long, shown live."""
    await start(page, "gen_random", speed=2)
    await expect(bar(page, state="running", connection="live")).to_be_visible()
    await expect(part(page, "percent")).not_to_be_empty()
    yield page
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()


async def test_the_script_finds_nothing_to_change_in_what_the_server_wrote(page):
    run = await start(page, "gen_random", speed=1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    script = {"body": "", "content_type": "text/javascript"}
    await page.route("**/task-progress.js", lambda route: route.fulfill(**script))
    await page.goto(f"/runs/{run}/", wait_until="load")
    html = "document.querySelector('task-progress').innerHTML"
    before = await page.evaluate(html)
    await page.unroute("**/task-progress.js")
    await page.evaluate(
        "import('/static/channels_progress/task-progress.js?once-more').then(() => 1)"
    )
    await expect(bar(page, connection="done")).to_be_visible()
    assert await page.evaluate(html) == before


async def test_only_what_changed_is_touched(page):
    await start(page, "gen_random", speed=1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    await page.evaluate(OBSERVE)
    await page.evaluate(RECEIVE, {})
    assert await touched(page) == set()
    await page.evaluate(RECEIVE, {"message": "One more thing"})
    await expect(part(page, "message")).to_have_text("One more thing")
    assert await touched(page) == {"message"}


async def test_older_news_is_dropped(page):
    await start(page, "gen_random", speed=1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    await page.evaluate(RECEIVE, {"rev": 1, "state": "running", "percent": 3})
    await expect(bar(page, state="succeeded")).to_be_visible()
    await expect(part(page, "percent")).to_have_text("100%")


async def test_a_task_that_asks_again_and_again_does_not_flicker(page):
    await start(page, "gen_random", speed=1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    waiting = {"rev": 1000, "state": "waiting", "reason": "poll", "ended": None}
    await page.evaluate(RECEIVE, waiting)
    await expect(bar(page, state="waiting")).to_be_visible()
    await page.evaluate(OBSERVE)
    await page.evaluate(RECEIVE, {"rev": 1001, "state": "running", "reason": None})
    assert await touched(page) == set()


async def test_html_is_text_wherever_it_comes_from(page):
    await start(page, "gen_random", speed=1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    html = "<img src=x onerror=alert(1)>"
    changes = {"title": html, "message": html, "unit": html, "error": {"message": html}}
    await page.evaluate(RECEIVE, changes)
    for name in ("title", "message", "error"):
        await expect(part(page, name)).to_have_text(html)
    assert await page.locator("task-progress img").count() == 0


async def test_no_total_no_value(page):
    await start(page, "no_total", seconds=2)
    progress = page.locator("main progress")
    await expect(part(page, "count")).to_contain_text("steps")
    assert await progress.get_attribute("value") is None
    await expect(bar(page, state="succeeded")).to_be_visible()
    await expect(progress).to_have_attribute("value", "100")


async def test_events_tell_of_changes_and_once_of_the_end(page):
    await page.add_init_script(
        """window.events = [];
        for (const type of ["progress:change", "progress:finished"]) {
          addEventListener(type, ({ detail, target }) => {
            if (target.closest("main")) events.push([type, detail.run, detail.state]);
          });
        }"""
    )
    run = await start(page, "gen_random", speed=50)
    await expect(bar(page, state="succeeded")).to_be_visible()
    events = await page.evaluate("window.events")
    assert {event[1] for event in events} == {run}
    ends = [event for event in events if event[0] == "progress:finished"]
    assert ends == [["progress:finished", run, "succeeded"]]
    assert sum(event[0] == "progress:change" for event in events) >= 3


# Keeps what comes into the live region, in `window.said`.
LISTEN = """window.said = [];
addEventListener("DOMContentLoaded", () => new MutationObserver((list) => {
  for (const { target, addedNodes } of list) {
    if (!target.matches(".progress-announcer")) continue;
    for (const node of addedNodes) said.push(node.textContent);
  }
}).observe(document.body, { childList: true, subtree: true }));"""


async def test_milestones_are_announced_and_nothing_else(page):
    await page.add_init_script(LISTEN)
    await start(page, "gen_random", speed=25)
    await expect(bar(page, state="succeeded")).to_be_visible()
    region = page.locator(".progress-announcer")
    await expect(region).to_contain_text("Random steps: Succeeded")
    assert await region.get_attribute("role") == "status"
    said = [text.removeprefix("Random steps: ") for text in await page.evaluate("said")]
    assert [word for word in said if word[0].isdigit()] == ["25%", "50%", "75%"]
    assert set(said) <= {"Running", "25%", "50%", "75%", "Succeeded"}


async def test_the_region_is_there_before_its_first_word(page):
    await page.goto("/trouble/")
    region = page.locator(".progress-announcer[role=status]")
    await expect(region).to_be_attached()
    await expect(region).to_be_empty()


async def test_of_several_news_each_is_said_once(page):
    await page.goto("/trouble/")
    await page.evaluate(
        """async () => {
          const { say } = await import("/static/channels_progress/announcer.js");
          for (const text of ["One", "Two", "One", ""]) say(text);
        }"""
    )
    region = page.locator(".progress-announcer")
    assert await region.locator("> *").all_text_contents() == ["One", "Two"]
    assert await region.get_attribute("aria-atomic") == "false"


async def test_a_lost_connection_is_said_and_that_it_is_back(page):
    await page.add_init_script(LISTEN)
    run = await start(page, "gen_random", speed=0.5)
    await expect(part(page, "percent")).not_to_be_empty()
    await page.goto(f"/runs/{run}/")  # where it runs from the beginning
    await expect(bar(page, connection="live")).to_be_visible()
    for offline, link in ((True, "offline"), (False, "live")):
        await page.context.set_offline(offline)
        await expect(bar(page, connection=link)).to_be_visible()
    said = [text for text in await page.evaluate("said") if "%" not in text]
    assert [text.partition(".")[0] for text in said] == [
        "This browser is offline",
        "Random steps: Running",
    ]


async def test_what_was_announced_can_be_news_again(page):
    await page.clock.install()
    await page.goto("/trouble/")
    region = page.locator(".progress-announcer")
    await page.evaluate(
        "import('/static/channels_progress/announcer.js').then((m) => m.say('Failed'))"
    )
    await expect(region).to_have_text("Failed")
    await page.clock.run_for(10_000)
    await expect(region).to_be_empty()


# Where the bar and the button are, without and with what comes and goes.
PLACES = """async ([before, after]) => {
  const { hubFor } = await import("/static/channels_progress/hub.js");
  const element = document.querySelector("main task-progress");
  const { envelope } = element.snapshot;
  const tops = (changes) => {
    hubFor(element.getAttribute("socket")).receive({ ...envelope, ...changes });
    const parts = element.querySelectorAll("progress, [data-verb=cancel]");
    return [...parts].map((part) => part.getBoundingClientRect().top);
  };
  return [tops(before), tops(after)];
}"""
NO_NUMBERS = {"percent": None, "current": None, "total": None}


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"asked": "pause"}),  # which the line tells
        ({"remaining": None}, {"remaining": 9}),
        (NO_NUMBERS, {}),
    ],
)
async def test_what_comes_and_goes_moves_nothing(running, width, before, after):
    await running.set_viewport_size({"width": width, "height": 800})
    places = await running.evaluate(PLACES, [before, after])
    assert places[0] == places[1]


async def test_an_element_that_is_moved_goes_on(running):
    await running.evaluate(
        """() => {
          const element = document.querySelector("task-progress");
          document.querySelector("main").append(element);
        }"""
    )
    await running.evaluate(OBSERVE)
    await expect(bar(running, connection="live")).to_be_visible()
    await running.wait_for_function("() => window.touched.includes('bar')")


async def test_two_elements_share_one_socket_as_do_two_copies_of_the_script(page):
    sockets = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    await start(page, "gen_random", speed=20)
    await page.evaluate(
        """async () => {
          const element = document.querySelector("task-progress");
          element.after(element.cloneNode(true));
          await import("/static/channels_progress/task-progress.js?again");
        }"""
    )
    await expect(bar(page, state="succeeded")).to_have_count(2)
    assert len(sockets) == 1


async def test_what_one_element_was_rendered_with_is_news_for_the_others(page):
    await start(page, "gen_random", speed=1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    await page.evaluate(
        """() => {
          const older = document.querySelector("task-progress");
          const newer = older.cloneNode(true);
          const envelope = { ...older.snapshot.envelope, rev: 1000, message: "News" };
          newer.setAttribute("envelope", JSON.stringify(envelope));
          document.querySelector("main").append(newer);
        }"""
    )
    await expect(part(page, "message")).to_have_text(["News", "News"])


async def test_an_element_that_is_removed_by_its_own_event_hears_no_more(page):
    await start(page, "gen_random", speed=1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    await page.evaluate(
        """() => {
          window.copy = document.querySelector("task-progress").cloneNode(true);
          copy.addEventListener("progress:change", () => copy.remove());
          document.querySelector("main").append(copy);
        }"""
    )
    await page.evaluate(RECEIVE, {"rev": 1000, "message": "News"})
    await expect(part(page, "message")).to_have_text("News")
    assert await page.evaluate("copy.snapshot.envelope.message") != "News"


async def test_a_finished_run_needs_no_socket(page):
    run = await start(page, "gen_random", speed=1000)
    await expect(bar(page, state="succeeded", connection="done")).to_be_visible()
    sockets = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    await page.goto(f"/runs/{run}/")
    await expect(bar(page, state="succeeded", connection="done")).to_be_visible()
    assert sockets == []


async def test_a_hidden_page_does_no_work_and_shows_the_truth_when_it_is_seen(running):
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", {
        configurable: true, get: () => hidden,
      });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    before = await running.locator("main progress").get_attribute("value")
    await running.evaluate(hide, True)
    await running.evaluate(OBSERVE)
    await running.wait_for_function(
        "(before) => document.querySelector('task-progress')"
        ".snapshot.envelope.current > Number(before) + 3",
        arg=before,
    )
    assert await running.evaluate("window.touched") == []
    await running.evaluate(hide, False)
    current = await running.evaluate(
        "document.querySelector('task-progress').snapshot.envelope.current"
    )
    await expect(part(running, "count")).to_have_text(f"{current} of 100 points")


async def test_a_run_that_is_not_yours_is_no_run(page, anew, stack):
    run = await start(page, "gen_random", speed=1000)
    stranger = await anew(stack)
    await stranger.goto("/")
    for address in (f"/runs/{run}/", "/runs/6f1d3c0e-8a0b-4c55-9d53-6f0b7f0a9e11/"):
        answer = await stranger.goto(address)
        assert answer.status == 403
        await expect(stranger.locator("main")).to_contain_text("does not exist")


async def test_an_element_for_a_run_that_may_not_be_seen_says_so(page):
    await start(page, "gen_random", speed=1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    await page.evaluate(
        """() => document.querySelector("task-progress").setAttribute(
          "run", "6f1d3c0e-8a0b-4c55-9d53-6f0b7f0a9e11")"""
    )
    await expect(bar(page, connection="refused")).to_be_visible()
    await expect(part(page, "line")).to_contain_text("does not exist")


async def test_an_error_that_names_no_run_is_about_none(page):
    await start(page, "gen_random", speed=1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    await page.reload()
    await page.evaluate(
        """async () => {
          const { hubFor } = await import("/static/channels_progress/hub.js");
          const element = document.querySelector("main task-progress");
          hubFor(element.getAttribute("socket"))
            .receive({ type: "error", code: "forbidden" });
        }"""
    )
    await expect(bar(page, connection="done")).to_be_visible()


async def test_one_run_too_many_for_a_socket_has_no_news(running):
    refused = """async () => {
      const { hubFor } = await import("/static/channels_progress/hub.js");
      const element = document.querySelector("main task-progress");
      const hub = hubFor(element.getAttribute("socket"));
      hub.receive({ type: "error", code: "too_many", ref: "w1" });
      const line = element.querySelector("[data-part=line]").textContent;
      return [element.getAttribute("connection"), line];
    }"""
    connection, line = await running.evaluate(refused)
    assert connection == "unavailable"
    assert "no news" in line
    await expect(bar(running, connection="live")).to_be_visible()


async def test_the_envelope_of_the_page_is_the_one_of_the_wire(page):
    run = await start(page, "gen_random", speed=1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    await page.goto(f"/runs/{run}/")
    written = json.loads(await bar(page).get_attribute("envelope"))
    answer = await page.context.request.get(f"/progress/runs/{run}/")
    asked = await answer.json()
    assert written | {"now": 0} == asked | {"now": 0}


@pytest.mark.parametrize(
    ("task", "state", "text"),
    [
        ("fail_midway", "failed", "Step 61 of 100 is missing."),
        ("above_total", "succeeded", "100, where 80 steps were expected"),
        ("retry_twice", "succeeded", "3 of 3"),
    ],
)
async def test_trouble_is_shown_as_what_it_is(page, task, state, text):
    await start(page, task, seconds=1)
    await expect(bar(page, state=state)).to_be_visible()
    await expect(bar(page)).to_contain_text(text)


async def test_a_failure_keeps_its_percent(page):
    await start(page, "fail_midway", seconds=1)
    await expect(bar(page, state="failed")).to_be_visible()
    await expect(part(page, "percent")).to_have_text("60%")
    await expect(page.locator("main progress")).to_have_attribute("value", "60")
    await expect(page.get_by_role("button", name="Run again")).to_be_visible()
