"""The line that says why nothing moves: what breaks here is real."""

import json
import re

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.browser.conftest import (
    bar,
    begin,
    part,
    post,
    press_start,
    runs_of,
    start,
    verb,
)


@pytest_asyncio.fixture(loop_scope="session")
async def nervous_page(anew, nervous_stack):
    yield await anew(nervous_stack)


async def test_offline_and_back(page):
    await start(page, "gen_random", speed=12)
    await expect(bar(page, connection="live")).to_be_visible()
    await page.context.set_offline(True)
    await expect(bar(page, connection="offline")).to_be_visible()
    await expect(part(page, "line")).to_contain_text("This browser is offline")
    await page.context.set_offline(False)
    await expect(bar(page, connection="live")).to_be_visible()
    await expect(part(page, "line")).to_be_empty()
    await expect(bar(page, state="succeeded")).to_be_visible()


async def test_without_websockets_it_polls_within_5_s_and_comes_back(anew, stack):
    page = await anew(stack)
    blocked = True

    async def proxy(socket):
        if blocked:
            await socket.close(code=1011)
        else:
            socket.connect_to_server()

    await page.route_web_socket("**/ws/**", proxy)
    await start(page, "gen_random", speed=7)
    await expect(bar(page, connection="polling")).to_be_visible(timeout=6000)
    await expect(part(page, "link")).to_contain_text("every 2 seconds")
    before = await part(page, "percent").text_content()
    await expect(part(page, "percent")).not_to_have_text(before)
    blocked = False
    await expect(bar(page, connection="live")).to_be_visible()
    await expect(part(page, "link")).to_be_empty()
    await expect(bar(page, state="succeeded")).to_be_visible()


def close(socket):
    return socket.close(code=1011)


def swallow(_socket):
    """Let nothing through in either direction."""


async def test_a_proxy_that_answers_for_the_server_is_not_believed(anew, stack):
    """A page that polls gets an error page of it, and then one that calls itself OK."""
    page = await anew(stack)
    statuses = [502, 200]

    async def answer(route):
        if not statuses:
            return await route.continue_()
        page = "<html>Please come back later.</html>"
        status = statuses.pop(0)
        await route.fulfill(status=status, content_type="text/html", body=page)

    await page.route(re.compile("/progress/runs/.+/"), answer)
    await page.route_web_socket("**/ws/**", close)
    await start(page, "gen_random", speed=7)
    await expect(bar(page, connection="polling")).to_be_visible()
    await expect(bar(page, state="succeeded")).to_be_visible()
    assert not statuses


NO_SOCKETS = """window.WebSocket = class {
  static OPEN = 1;
  constructor() { throw new DOMException("Not here", "SecurityError"); }
};"""


async def test_a_browser_that_allows_no_websockets_at_all_polls(page):
    await page.add_init_script(NO_SOCKETS)
    await press_start(page, 20)
    await expect(bar(page, connection="polling")).to_be_visible()
    await expect(bar(page, state="succeeded")).to_be_visible()


@pytest.mark.parametrize("proxy", [close, swallow])
async def test_start_works_without_websockets(anew, stack, proxy):
    page = await anew(stack)
    await page.route_web_socket("**/ws/**", proxy)
    await press_start(page, 20)
    await expect(bar(page, connection="polling")).to_be_visible(timeout=6000)
    await expect(part(page, "percent")).not_to_be_empty()
    await expect(bar(page, state="succeeded")).to_be_visible()
    assert len(await runs_of(page)) == 1


async def test_a_start_whose_socket_breaks_goes_on(anew, stack):
    page = await anew(stack)

    async def break_once(socket):
        server = socket.connect_to_server()

        async def forward(message):
            socket.send(message)
            if '"running"' in message:
                await socket.close(code=1012)

        server.on_message(forward)

    await page.route_web_socket("**/ws/start/**", break_once)
    await press_start(page, 30)
    await expect(bar(page, state="succeeded")).to_be_visible()
    assert len(await runs_of(page)) == 1


async def test_a_start_of_which_only_the_end_is_heard_may_be_pressed_again(anew, stack):
    page = await anew(stack)

    async def say_little(socket):
        server = socket.connect_to_server()

        def forward(message):
            frame = json.loads(message)
            if frame["type"] == "started" or frame.get("state") == "succeeded":
                socket.send(message)

        server.on_message(forward)

    await page.route_web_socket("**/ws/start/**", say_little)
    await press_start(page, 1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    await expect(page.locator("start-button")).to_have_attribute("state", "idle")


async def test_a_start_whose_socket_breaks_at_the_end_may_be_pressed_again(anew, stack):
    """The first that is heard of its run is the end, on the page's own socket."""
    page = await anew(stack)

    async def break_at_the_end(socket):
        server = socket.connect_to_server()

        async def forward(message):
            frame = json.loads(message)
            if frame["type"] == "started":
                socket.send(message)
            elif frame.get("state") == "succeeded":
                await socket.close(code=1012)

        server.on_message(forward)

    await page.route_web_socket("**/ws/start/**", break_at_the_end)
    await press_start(page, 1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    await expect(page.locator("start-button")).to_have_attribute("state", "idle")


async def test_what_a_start_was_refused_for_is_gone_when_it_goes_well(anew, stack):
    page = await anew(stack)
    refused = []

    async def refuse_once(socket):
        if refused:
            socket.connect_to_server()
            return
        refused.append(socket)
        error = {"type": "error", "code": "unavailable", "message": "Not now."}
        socket.send(json.dumps(error))
        await socket.close(code=1013)

    await page.route_web_socket("**/ws/start/**", refuse_once)
    await press_start(page, 1000)
    await expect(bar(page, state="succeeded")).to_be_visible()
    await expect(page.locator("start-button [data-error='']")).to_be_empty()
    assert len(refused) == 1


async def test_a_start_whose_socket_only_seems_open_goes_on(anew, stack):
    page = await anew(stack)
    deaf = []

    def grow_deaf(socket):
        server = socket.connect_to_server()
        socket.on_message(lambda message: deaf or server.send(message))
        server.on_message(lambda message: deaf or socket.send(message))

    await page.route_web_socket("**/ws/start/**", grow_deaf)
    await press_start(page, 2)
    await expect(part(page, "percent")).not_to_be_empty()
    deaf.append(True)
    before = await part(page, "percent").text_content()
    await expect(part(page, "percent")).not_to_have_text(before, timeout=20_000)


def never_answer(_route):
    """The request hangs for as long as its page waits."""


async def test_a_start_over_http_is_not_waited_for_for_ever(anew, stack):
    page = await anew(stack)
    await page.route_web_socket("**/ws/**", close)
    await page.route("**/progress/start/**", never_answer)
    async with page.expect_event("requestfailed", lambda r: "/start/" in r.url):
        await page.goto("/")
        await page.get_by_role("button", name="Start").click()


async def test_a_button_without_an_answer_says_so_and_can_be_pressed_again(page):
    await start(page, "gen_random", speed=0.5)
    await expect(bar(page, state="running")).to_be_visible()
    await page.route("**/cancel/", never_answer)
    await verb(page, "cancel").click()
    problem = "The server did not answer. Try again."
    await expect(part(page, "problem")).to_have_text(problem)
    await expect(page.locator(".progress-announcer")).to_contain_text(problem)
    await page.unroute("**/cancel/")
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()


async def test_a_socket_that_only_seems_open_is_given_up(anew, stack):
    """As after a walk out of the reach of a network: nobody closes it."""
    page = await anew(stack)
    opened, deaf = [], []

    async def lose_the_first(socket):
        server = socket.connect_to_server()
        opened.append(socket)
        if len(opened) > 1:
            return
        socket.on_message(lambda message: deaf or server.send(message))
        server.on_message(lambda message: deaf or socket.send(message))

    await page.route_web_socket("**/ws/progress/**", lose_the_first)
    await start(page, "gen_random", speed=2)
    await expect(part(page, "percent")).not_to_be_empty()
    await expect(bar(page, connection="live")).to_be_visible()
    deaf.append(True)
    before = await part(page, "percent").text_content()
    await expect(part(page, "percent")).not_to_have_text(before, timeout=20_000)
    assert len(opened) == 2


async def test_one_strange_answer_stops_no_other_run(anew, stack):
    page = await anew(stack)
    await page.route_web_socket("**/ws/**", close)
    await page.goto("/")
    runs = [await begin(page, "gen_random", speed=0.5) for _ in range(2)]
    await page.goto("/runs/")
    bars = page.locator("main task-progress")
    first = await bars.first.get_attribute("run")
    (second,) = {*runs} - {first}

    async def answer(route):
        await route.fulfill(status=200, content_type="text/html", body="<html></html>")

    await page.route(re.compile(f"/progress/runs/{first}/"), answer)
    await post(page.context, f"/progress/runs/{second}/cancel/")
    await expect(
        page.locator(f"main [run='{second}'][state=cancelled]")
    ).to_be_visible()


async def test_a_web_process_that_is_gone_and_comes_back(nervous_page, nervous_stack):
    page = nervous_page
    await start(page, "gen_random", speed=0.5)
    await expect(bar(page, connection="live")).to_be_visible()
    nervous_stack.web.kill()
    await expect(bar(page, connection="unreachable")).to_be_visible()
    await expect(part(page, "line")).to_contain_text("The server cannot be reached")
    await verb(page, "cancel").click()
    await expect(part(page, "problem")).to_have_text(
        "The server did not answer. Try again."
    )
    nervous_stack.web.start()
    await expect(bar(page, connection="live")).to_be_visible()
    await expect(part(page, "problem")).to_be_empty()
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()


async def test_a_silent_worker_is_told_from_a_slow_task(nervous_page, nervous_stack):
    page = nervous_page
    await start(page, "gen_random", speed=0.5)
    await expect(part(page, "percent")).not_to_be_empty()
    nervous_stack.worker.freeze()
    try:
        line = part(page, "line")
        await expect(line).to_contain_text("The worker has been silent for")
        await expect(bar(page, state="lost")).to_be_visible()
        await expect(line).to_contain_text("No word from the worker for")
    finally:
        nervous_stack.worker.thaw()
    await expect(bar(page, state="running")).to_be_visible()
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()


async def test_the_start_page_tells_a_silent_worker_too(nervous_page, nervous_stack):
    page = nervous_page
    await press_start(page, 0.5)
    await expect(part(page, "percent")).not_to_be_empty()
    nervous_stack.worker.freeze()
    try:
        line = part(page, "line")
        await expect(line).to_contain_text("The worker has been silent for")
    finally:
        nervous_stack.worker.thaw()
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()


async def test_a_slow_task_is_called_slow(nervous_page):
    page = nervous_page
    await start(page, "hang_silently", seconds=0.5)
    line = part(page, "line")
    await expect(line).to_contain_text("The worker is alive, it is just slow.")
    await expect(bar(page, state="running")).to_be_visible()


async def test_without_a_worker_it_waits_and_says_so(nervous_page, nervous_stack):
    page = nervous_page
    nervous_stack.worker.kill()
    try:
        await start(page, "gen_random", speed=1000)
        await expect(part(page, "line")).to_have_text(
            "Queued for 3 s, no worker has taken it yet."
        )
    finally:
        nervous_stack.worker.start()
    await expect(bar(page, state="succeeded")).to_be_visible()


async def test_a_store_that_is_gone_is_no_silent_worker(nervous_page, nervous_stack):
    page = nervous_page
    await start(page, "gen_random", speed=1)
    await expect(part(page, "percent")).not_to_be_empty()
    nervous_stack.valkey.kill()
    try:
        await expect(bar(page, connection="unavailable")).to_be_visible()
        await expect(part(page, "line")).to_contain_text("The server has no news")
    finally:
        nervous_stack.valkey.start()
    await expect(bar(page, connection="live")).to_be_visible()
