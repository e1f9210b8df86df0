"""axe-core finds nothing: every page in its main states, in light and in dark."""

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from django.test import RequestFactory
from django.views.csrf import csrf_failure
from django.views.defaults import server_error
from playwright.async_api import expect

from tests.browser.conftest import (
    PATIENCE,
    RECEIVE,
    bar,
    begin,
    leave,
    part,
    start,
    verb,
)

ROWS = "when,sensor,value\n2025-03-01T12:00:00Z,attic,1\nyesterday,attic,warm\n,,\n"
# What passes is not written down: that takes longer than to look.
VIOLATIONS = {"resultTypes": ["violations"]}
# What WCAG 2.2 asks of the size of a target is off unless asked for.
ALL = VIOLATIONS | {"rules": {"target-size": {"enabled": True}}}
COLOURS = VIOLATIONS | {"runOnly": ["color-contrast", "link-in-text-block"]}


async def assert_clean(page):
    """By every rule in light, and in dark by those that look at colours."""
    for scheme, options in (("light", ALL), ("dark", COLOURS)):
        # Without motion: what fades in has too little contrast for a moment.
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = await Axe().run(page, options=options)
        assert not found.response["violations"], (
            f"{page.url}, {scheme}:\n{found.generate_report()}"
        )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def person(browser, nervous_stack):
    """Somebody with runs in their browser; one context for all of this module."""
    context = await browser.new_context(base_url=nervous_stack.url)
    context.set_default_timeout(PATIENCE)
    page = await context.new_page()
    await page.goto("/")
    yield page
    await leave(context)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shown(person):
    """`await shown(run, state)`: the page of that run, once it shows the state."""

    async def open_run(run, state):
        await person.goto(f"/runs/{run}/")
        await expect(bar(person, state=state)).to_be_visible()
        return person

    return open_run


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/tasks/fft_random/",
        "/tasks/import_rows/",
        "/tasks/render_elsewhere/",
        "/trouble/",
        "/runs/",
        "/accounts/login/",
        "/accounts/sign-up/",
        "/nothing/",
        "/runs/6c923248-ff32-5e00-a7cc-020d29813e81/",
        "/runs/?page=2",
    ],
)
async def test_a_page_as_it_opens(person, path):
    await person.goto(path)
    await assert_clean(person)


@pytest.mark.parametrize("path", ["/", "/trouble/", "/runs/"])
async def test_the_second_language(browser, nervous_stack, path):
    page = await browser.new_page(base_url=nervous_stack.url, locale="de")
    await page.goto(path)
    await assert_clean(page)
    await page.context.close()


@pytest.mark.parametrize("path", ["/accounts/login/", "/accounts/sign-up/"])
async def test_a_form_that_came_back(person, path):
    await person.goto(path)
    await person.get_by_label("Username").fill("not a name!")
    for field in await person.locator("input[type=password]").all():
        await field.fill("1234")
    await person.locator("main button").click()
    await expect(person.locator("main .wrong-text:not(:empty)").first).to_be_visible()
    await assert_clean(person)


async def test_a_wrong_parameter(person):
    await person.goto("/")
    await person.evaluate("document.querySelector('form.start').noValidate = true")
    await person.get_by_label("Speed").fill("0")
    await person.get_by_role("button", name="Start").click()
    await expect(person.locator("[data-error=speed]")).not_to_be_empty()
    await assert_clean(person)


@pytest.mark.parametrize("failure", [server_error, csrf_failure])
async def test_the_page_of_an_error(person, failure):
    answer = failure(RequestFactory().get("/"))
    fulfil = {"status": answer.status_code, "body": answer.content}
    await person.route("**/broken", lambda route: route.fulfill(**fulfil))
    await person.goto("/broken")
    await expect(person.locator("h1")).to_be_visible()
    await assert_clean(person)
    await person.unroute("**/broken")


async def test_start_running_and_ended(person):
    await person.goto("/")
    await person.get_by_label("Speed").fill("20")
    await person.get_by_role("button", name="Start").click()
    await expect(bar(person, state="running")).to_be_visible()
    await assert_clean(person)
    await expect(bar(person, state="succeeded")).to_be_visible()
    await assert_clean(person)


async def test_a_run_that_succeeded(shown, person):
    run = await begin(person, "fft_random", n=500)
    page = await shown(run, "succeeded")
    await expect(page.locator("#result svg").first).to_be_visible()
    await assert_clean(page)


async def test_an_import_with_bad_rows(person):
    await person.goto("/tasks/import_rows/")
    file = {"name": "rows.csv", "mimeType": "text/csv", "buffer": ROWS.encode()}
    await person.get_by_label("CSV file").set_input_files(file)
    await person.get_by_role("button", name="Import").click()
    await expect(person.locator("#result table")).to_be_visible()
    await assert_clean(person)


async def test_a_run_that_failed(shown, person):
    run = await begin(person, "fail_midway", seconds=0.5)
    await assert_clean(await shown(run, "failed"))


async def test_a_run_that_was_cancelled(shown, person):
    run = await begin(person, "gen_random", speed=0.5)
    page = await shown(run, "running")
    await expect(part(page, "percent")).not_to_be_empty()
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()
    await assert_clean(page)


async def test_a_run_that_waits(shown, person):
    # Nobody renders here.
    run = await begin(person, "render_elsewhere", frames=100)
    await assert_clean(await shown(run, "waiting"))


async def test_a_run_without_a_total(shown, person):
    run = await begin(person, "no_total", seconds=10)
    await assert_clean(await shown(run, "running"))


async def test_a_run_that_does_not_stop(shown, person):
    run = await begin(person, "hang_silently", seconds=2)  # hears nothing for 60 s
    page = await shown(run, "running")
    await expect(part(page, "percent")).to_have_text("40%")
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelling")).to_be_visible()
    await assert_clean(page)
    await expect(verb(page, "force")).to_be_visible()
    await assert_clean(page)
    await verb(page, "force").click()
    await expect(bar(page, state="cancelled")).to_be_visible()


NOW = 1_763_700_000_000  # ms
HALF_WAY = {
    **dict.fromkeys(["ended", "result", "samples"]),
    **dict.fromkeys(["now", "seen", "changed", "queued", "started"], NOW),
    **dict.fromkeys(["percent", "current"], 42),
    "rev": 1000,
    "total": 100,
    "rate": 3.5,
    "remaining": 20,
}


@pytest.fixture(scope="module")
def ended():
    """The id of a run that has ended, once there is one."""
    return []


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "running", "pausable": True, "message": "Bad rows: 3"},
        {"state": "running", "asked": "pause", "pausable": True},
        {"state": "running", "seen": NOW - 6000},
        {"state": "running", "changed": NOW - 11_000},
        {"state": "running", "current": 120, "percent": 99},
        {"state": "waiting", "reason": "retry", "due": NOW + 60_000, "attempt": 2},
        {"state": "waiting", "reason": "redelivery"},
        {"state": "paused", "pausable": True},
        {"state": "failed", "error": {"message": "Broken.", "reference": "7f3a"}},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
async def test_whatever_a_bar_says(shown, person, ended, changes):
    if not ended:
        ended.append(await begin(person, "gen_random", speed=1000))
    page = await shown(ended[0], "succeeded")
    await page.evaluate(RECEIVE, HALF_WAY | changes)
    await expect(bar(page, state=changes["state"])).to_be_visible()
    await assert_clean(page)


async def test_a_page_that_is_cut_off(anew, nervous_stack):
    page = await anew(nervous_stack)
    await page.route_web_socket("**/ws/**", lambda socket: socket.close(code=1011))
    await start(page, "gen_random", speed=0.5)
    await expect(bar(page, connection="polling")).to_be_visible()
    await assert_clean(page)
    await page.route("**/progress/runs/**", lambda route: route.abort())
    await expect(bar(page, connection="unreachable")).to_be_visible()
    await verb(page, "cancel").click()
    await expect(part(page, "problem")).not_to_be_empty()
    await assert_clean(page)
    await page.context.set_offline(True)
    await expect(bar(page, connection="offline")).to_be_visible()
    await assert_clean(page)
    await page.context.set_offline(False)
    await page.unroute("**/progress/runs/**")
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()


async def test_a_run_that_cannot_be_started_again(shown, person):
    page = await shown(await begin(person, "gen_random", speed=1000), "succeeded")
    form = page.locator("main [data-verb=again]")
    address = "/runs/6c923248-ff32-5e00-a7cc-020d29813e81/again/"
    await form.evaluate("(form, address) => (form.action = address)", address)
    await verb(page, "again").click()
    await page.wait_for_url("**/again/")
    await assert_clean(page)


async def test_the_tray_and_a_toast(person):
    await begin(person, "gen_random", speed=0.5)
    await begin(person, "fail_midway", seconds=4)
    await person.goto("/tasks/fft_random/")
    await person.get_by_role("button", name="Under way").click()
    await expect(person.locator("#tray task-progress[run]").first).to_be_visible()
    toast = person.locator(".toast", has_text="Fails at 60 %")
    await expect(toast).to_be_visible()
    await assert_clean(person)


async def test_a_tray_with_nothing_in_it(anew, nervous_stack):
    page = await anew(nervous_stack)
    await page.goto("/")
    await page.get_by_role("button", name="Under way").click()
    await expect(page.get_by_text("Nothing is running now.")).to_be_visible()
    await assert_clean(page)


async def test_my_runs(person):
    await person.goto("/runs/")
    await expect(person.locator("main task-progress").first).to_be_visible()
    await assert_clean(person)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def frozen(person, nervous_stack):
    """A run whose worker has stopped for good; the worker comes back with the last."""
    run = await begin(person, "gen_random", speed=0.5)
    await person.goto(f"/runs/{run}/")
    await expect(bar(person, state="running")).to_be_visible()
    nervous_stack.worker.freeze()
    yield run
    nervous_stack.worker.thaw()


async def test_a_run_that_is_lost(shown, frozen):
    await assert_clean(await shown(frozen, "lost"))


async def test_a_run_that_nobody_takes(shown, person, frozen):
    page = await shown(await begin(person, "gen_random"), "queued")
    await expect(part(page, "line")).to_contain_text("no worker")
    await assert_clean(page)


async def test_a_store_that_is_gone(person, nervous_stack):
    await person.goto("/")
    nervous_stack.valkey.kill()
    try:
        await person.get_by_role("button", name="START").click()
        await expect(
            person.locator("start-button > form > .wrong-text")
        ).to_be_visible()
        await assert_clean(person)
        await person.goto("/runs/")
        await assert_clean(person)
    finally:
        nervous_stack.valkey.start()
    # The page tries again by itself.
    await expect(person.get_by_role("heading", name="My runs")).to_be_visible()
