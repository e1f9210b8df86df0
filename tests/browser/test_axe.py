"""axe-core finds nothing: every page in its main states, in light and in dark."""

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from django.test import RequestFactory
from django.views.defaults import server_error
from playwright.async_api import expect

from tests.browser.conftest import PATIENCE, bar, begin, part, verb

ROWS = "when,sensor,value\n2025-03-01T12:00:00Z,attic,1\nyesterday,attic,warm\n,,\n"
# What WCAG 2.2 asks of the size of a target is off unless asked for.
OPTIONS = {"rules": {"target-size": {"enabled": True}}}


async def assert_clean(page):
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        found = await Axe().run(page, options=OPTIONS)
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
    await context.close()


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
    ],
)
async def test_a_page_as_it_opens(person, path):
    await person.goto(path)
    await assert_clean(person)


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


async def test_the_page_of_an_error_of_ours(person):
    body = server_error(RequestFactory().get("/")).content
    await person.route("**/broken", lambda r: r.fulfill(status=500, body=body))
    await person.goto("/broken")
    await assert_clean(person)


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
    run = await begin(person, "hang_silently", seconds=0.5)
    page = await shown(run, "running")
    await expect(part(page, "percent")).to_have_text("40%")
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelling")).to_be_visible()
    await assert_clean(page)


async def test_the_tray_and_a_toast(person):
    await begin(person, "gen_random", speed=0.5)
    await person.goto("/tasks/fft_random/")
    await begin(person, "fail_midway", seconds=0.5)
    await person.get_by_role("button", name="Under way").click()
    await expect(person.locator("#tray task-progress[run]").first).to_be_visible()
    await expect(person.locator(".toast")).to_be_visible()
    await assert_clean(person)


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
