"""The tray, the toasts and the list: what is said wherever a person is on the site."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import RECEIVE, bar, begin, post, press_start, start, verb

# A tab that nobody looks at, as Chromium without a window cannot make one.
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def tray(page):
    return page.locator("#tray task-progress")


def toast(page, state):
    return page.locator(f".toast task-progress[state={state}]")


def count(page):
    return page.locator("[data-count]")


async def start_run(page, speed):
    await press_start(page, speed)
    await expect(bar(page, state="running")).to_be_visible()


async def another_tab(page, path):
    tab = await page.context.new_page()
    await tab.goto(path)
    return tab


async def test_the_tray_follows_what_is_under_way(page):
    await page.goto("/")
    run = await begin(page, "gen_random", speed=0.5)
    await page.goto("/trouble/")
    await expect(count(page)).to_have_text("1")
    await page.get_by_role("button", name="Under way").click()
    row = tray(page)
    await expect(row).to_have_attribute("state", "running")
    await expect(row).to_have_attribute("connection", "live")
    await expect(row.get_by_role("link", name="Random steps")).to_have_attribute(
        "href", f"/runs/{run}/"
    )
    await row.get_by_role("button", name="Cancel").click()
    await expect(row).to_have_attribute("state", "cancelled")
    await expect(count(page)).to_be_hidden()
    await page.mouse.move(0, 0)  # it is not taken from under the pointer
    await expect(row).to_have_count(0)
    await expect(page.get_by_text("Nothing is running now.")).to_be_visible()


async def test_it_opens_and_closes_by_the_keyboard(page):
    await page.goto("/")
    button = page.get_by_role("button", name="Under way")
    await button.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#tray")).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="All my runs")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#tray")).to_be_hidden()
    await expect(button).to_be_focused()


async def test_a_run_begun_in_another_tab_appears_without_a_reload(page):
    await page.goto("/runs/")
    await expect(page.get_by_text("Nothing here yet")).to_be_visible()
    starter = await another_tab(page, "/")
    await start_run(starter, 2)
    await expect(bar(page, state="running")).to_be_visible()
    await expect(count(page)).to_have_text("1")
    await expect(page.get_by_text("Nothing here yet")).to_be_hidden()
    await expect(page.locator(".runs time")).not_to_be_empty()


async def test_the_title_says_how_much_and_how_far(page):
    await page.goto("/trouble/")
    title = await page.title()
    await start(page, "gen_random", speed=0.5)
    await page.goto("/trouble/")
    await page.wait_for_function(r"() => /^\(1\) \d+% Trouble/.test(document.title)")
    await page.get_by_role("button", name="Under way").click()
    await tray(page).get_by_role("button", name="Cancel").click()
    await page.wait_for_function("(title) => document.title === title", arg=title)


async def test_a_title_keeps_its_line_on_a_narrow_screen(anew, nervous_stack):
    page = await anew(nervous_stack, viewport={"width": 320, "height": 640})
    rows = b"when,sensor,value\n2025-03-01T12:00:00Z,attic,1\n"
    file = {"name": "rows.csv", "mimeType": "text/csv", "buffer": rows}
    await page.goto("/tasks/import_rows/")
    await page.get_by_label("CSV file").set_input_files(file)
    nervous_stack.worker.freeze()  # so that it stays as it is
    try:
        await page.get_by_role("button", name="Import").click()
        await verb(page, "pause").click()
        await expect(bar(page, state="paused")).to_be_visible()
        await page.goto("/runs/")
        title = await bar(page).get_by_role("link").bounding_box()
        state = await bar(page).locator(".tp-state").bounding_box()
        assert title["height"] < 1.5 * state["height"]
        await bar(page).get_by_role("button", name="Cancel").click()
        await expect(bar(page, state="cancelled")).to_be_visible()
    finally:
        nervous_stack.worker.thaw()


async def test_all_runs_of_a_page_share_one_socket(page):
    sockets = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    await page.goto("/")
    for _ in range(3):
        await begin(page, "gen_random", speed=1)
    await page.goto("/runs/")
    for n in range(3):
        await expect(bar(page, connection="live").nth(n)).to_be_visible()
    await expect(count(page)).to_have_text("3")
    assert len(sockets) == 1


@pytest.mark.parametrize(
    ("task", "params", "state", "word"),
    [
        ("gen_random", {"speed": 40}, "succeeded", "Random steps: Succeeded"),
        ("fail_midway", {"seconds": 4}, "failed", "Fails at 60 %: Failed"),
    ],
)
async def test_an_end_is_said_on_another_page(page, task, params, state, word):
    await page.goto("/")
    run = await begin(page, task, **params)
    await page.goto("/trouble/")
    await expect(toast(page, state)).to_be_visible()
    await expect(page.locator(".progress-announcer")).to_have_text(word)
    await expect(page.locator(".toast")).to_have_count(1)
    await toast(page, state).get_by_role("link").click()
    await page.wait_for_url(f"**/runs/{run}/")
    await expect(page.locator("#receipt")).to_be_visible()


async def test_a_toast_can_be_closed(page):
    await page.goto("/")
    await begin(page, "fail_midway", seconds=4)
    await page.goto("/trouble/")
    await expect(toast(page, "failed")).to_be_visible()
    await page.get_by_role("button", name="Close").click()
    await expect(page.locator(".toast")).to_have_count(0)


async def test_on_its_own_page_a_run_needs_no_toast(page):
    await start(page, "gen_random", speed=60)
    await expect(page.locator("#receipt")).to_be_visible()
    await expect(page.locator(".toast")).to_have_count(0)


async def test_on_the_start_page_its_run_needs_no_toast_either(page):
    await start_run(page, 20)
    await expect(count(page)).to_have_text("1")
    await expect(bar(page, state="succeeded")).to_be_visible()
    await expect(count(page)).to_be_hidden()
    await expect(page.locator(".toast")).to_have_count(0)


async def test_what_ends_between_two_pages_is_said_on_the_next(page):
    await page.goto("/")
    run = await begin(page, "gen_random", speed=1)
    await page.goto("/trouble/")
    await expect(count(page)).to_have_text("1")
    await page.goto("about:blank")
    address = f"/progress/runs/{run}/"
    assert (await post(page.context, f"{address}cancel/")).status == 202
    while (await (await page.request.get(address)).json())["state"] != "cancelled":
        pass
    await page.goto("/trouble/")
    await expect(toast(page, "cancelled")).to_be_visible()


async def test_a_lost_run_is_said_and_taken_back(anew, nervous_stack):
    page = await anew(nervous_stack)
    await page.goto("/")
    await begin(page, "gen_random", speed=1)
    await page.goto("/trouble/")
    await page.wait_for_function(r"() => /^\(1\) \d+%/.test(document.title)")
    nervous_stack.worker.freeze()
    try:
        await expect(toast(page, "lost")).to_be_visible()
        await expect(page.locator(".progress-announcer")).to_have_text(
            "Random steps: Lost"
        )
    finally:
        nervous_stack.worker.thaw()
    await expect(page.locator(".toast")).to_have_count(0)


async def test_a_hidden_tab_asks_for_nothing_until_it_is_shown(page):
    await page.goto("/trouble/")
    asked = []
    page.on("request", lambda each: asked.append(each.url))

    def lists():
        return [url for url in asked if "/static/" not in url]

    await page.evaluate(HIDE, True)
    starter = await another_tab(page, "/")
    await start_run(starter, 0.5)
    await expect(count(starter)).to_have_text("1")
    assert lists() == []
    await page.evaluate(HIDE, False)
    await expect(count(page)).to_have_text("1")
    assert [url.partition("/runs/")[2] for url in lists()] == ["tray/"]


NOTES = """
window.notes = [];
window.Notification = class extends EventTarget {
  static permission = "default";
  static async requestPermission() {
    return (this.permission = "granted");
  }
  constructor(text) {
    super();
    window.notes.push(text);
  }
};
"""
WISHED = """
Notification.permission = "granted";
localStorage.setItem("HomeApp.notify", "1");
"""


async def test_a_notification_only_for_who_has_asked(anew, stack):
    page = await anew(stack, permissions=["notifications"])
    await page.add_init_script(NOTES)
    await page.goto("/")
    await begin(page, "gen_random", speed=40)
    await page.goto("/trouble/")
    await page.evaluate(HIDE, True)
    await page.wait_for_function("() => !document.title.startsWith('(')")
    await page.evaluate(HIDE, False)
    await expect(toast(page, "succeeded")).to_be_visible()
    assert await page.evaluate("window.notes") == []

    await begin(page, "gen_random", speed=15)
    await page.reload()
    await page.get_by_role("button", name="Under way").click()
    wish = page.get_by_role("button", name="Notify me when one ends")
    await expect(wish).to_have_attribute("aria-pressed", "false")
    await wish.click()
    await expect(wish).to_have_attribute("aria-pressed", "true")
    await page.evaluate(HIDE, True)
    await page.wait_for_function("() => window.notes.length === 1")
    assert await page.evaluate("window.notes") == ["Random steps: Succeeded"]


async def test_a_notification_comes_though_the_connection_was_lost(anew, stack):
    page = await anew(stack)
    await page.add_init_script(NOTES + WISHED)
    sockets = []

    def connect(socket):
        sockets.append(socket)
        socket.connect_to_server()

    await page.route_web_socket("**/ws/progress/", connect)
    await page.goto("/")
    run = await begin(page, "gen_random", speed=0.5)
    await page.goto("/trouble/")
    await expect(tray(page)).to_have_attribute("connection", "live")
    await page.evaluate(HIDE, True)
    await sockets[-1].close(code=1012)
    await post(page.context, f"/progress/runs/{run}/cancel/")
    await page.wait_for_function("() => window.notes.length === 1")
    assert await page.evaluate("window.notes") == ["Random steps: Cancelled"]


async def test_a_hidden_tab_does_not_keep_what_is_not_so_any_more(page):
    await page.add_init_script(NOTES + WISHED)
    await page.goto("/")
    await begin(page, "gen_random", speed=0.5)
    await page.goto("/trouble/")
    await expect(tray(page)).to_have_attribute("state", "running")
    await page.evaluate(HIDE, True)
    await page.evaluate(RECEIVE, {"rev": 1000, "state": "lost"})
    await page.evaluate(RECEIVE, {"rev": 1001, "state": "running"})
    await page.evaluate(HIDE, False)
    assert await page.locator(".progress-announcer").text_content() == ""
    await page.evaluate(HIDE, True)
    await page.evaluate(RECEIVE, {"rev": 1002, "state": "failed"})
    await page.wait_for_function("() => window.notes.includes('Random steps: Failed')")
    assert await page.evaluate("window.notes") == ["Random steps: Failed"]


async def test_a_list_is_not_waited_for_for_ever(page):
    await page.goto("/trouble/")
    await page.route("**/runs/tray/", lambda _route: None)
    async with page.expect_event("requestfailed", lambda r: "/tray/" in r.url):
        await page.evaluate(HIDE, False)
    await page.unroute("**/runs/tray/")
    async with page.expect_response("**/runs/tray/"):
        await page.evaluate(HIDE, False)


async def test_a_button_of_the_tray_that_failed_is_said(anew, stack):
    page = await anew(stack)  # whose console may speak of the request
    await page.goto("/")
    await begin(page, "gen_random", speed=0.5)
    await page.goto("/trouble/")
    await page.get_by_role("button", name="Under way").click()
    await page.route("**/cancel/", lambda route: route.abort())
    await tray(page).get_by_role("button", name="Cancel").click()
    await expect(page.locator(".progress-announcer")).to_have_text(
        "The server did not answer. Try again."
    )


async def test_run_again_leads_to_the_new_run(page):
    run = await start(page, "gen_random", speed=100)
    await expect(bar(page, state="succeeded")).to_be_visible()
    await verb(page, "again").click()
    await page.wait_for_url(lambda url: "/runs/" in url and run not in url)
    await expect(bar(page, state="succeeded")).to_be_visible()


async def test_the_receipt_comes_with_the_end(page):
    await start(page, "gen_random", speed=30)
    await expect(page.locator("#receipt")).to_be_visible()
    await expect(page.get_by_text("100 points", exact=True)).to_be_visible()
    await expect(page.get_by_role("img", name="Rate over time")).to_be_visible()


async def test_the_receipt_comes_as_soon_as_the_server_can_give_it(anew, stack):
    page = await anew(stack)  # whose console may speak of the 503
    run = await start(page, "gen_random", speed=30)
    failures = [503, None]

    async def answer(route):
        if not failures:
            await route.continue_()
        elif status := failures.pop(0):
            await route.fulfill(status=status)
        else:
            await route.abort()

    await page.route(f"{stack.url}/runs/{run}/", answer)
    await expect(page.locator("#receipt")).to_be_visible()
    assert not failures


async def test_the_receipt_comes_though_its_script_is_late(page):
    """A short run may have ended before that."""
    await page.goto("/")
    run = await begin(page, "gen_random", speed=30)
    late = page.expect_request("**/result*.js")
    held = []
    await page.route("**/result*.js", lambda route: held.append(route))
    async with late:
        await page.goto(f"/runs/{run}/", wait_until="commit")
    await expect(bar(page, state="succeeded")).to_be_visible()
    await held.pop().continue_()
    await expect(page.locator("#receipt")).to_be_visible()


async def test_the_receipt_of_a_hidden_tab_waits_until_it_is_seen(page):
    await start(page, "gen_random", speed=30)
    asked = []
    page.on("request", lambda each: asked.append(each.url))
    await page.evaluate(HIDE, True)
    ended = "() => document.querySelector('main task-progress').finished"
    await page.wait_for_function(ended)
    assert page.url not in asked
    await page.evaluate(HIDE, False)
    await expect(page.locator("#receipt")).to_be_visible()


async def test_who_signs_up_takes_the_runs_along(page):
    await page.goto("/")
    run = await begin(page, "gen_random", speed=1)
    await page.goto("/accounts/sign-up/")
    await page.get_by_label("Username").fill(f"ann-{run[:8]}")
    await page.get_by_label("Password", exact=True).fill("a sentence of some length")
    await page.get_by_label("Password confirmation").fill("a sentence of some length")
    await page.get_by_role("main").get_by_role("button", name="Sign up").click()
    await page.wait_for_url("**/runs/")
    await expect(bar(page, run=f"'{run}'", connection="live")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    await page.goto("/runs/")
    await expect(page.get_by_text("Nothing here yet")).to_be_visible()
