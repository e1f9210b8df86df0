"""The site below a path of its host, by FORCE_SCRIPT_NAME: every link leads there."""

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.browser.conftest import bar, part, verb
from tests.stack import Stack

PREFIX = "/sub"


@pytest.fixture(scope="module")
def below():
    with Stack(env={"FORCE_SCRIPT_NAME": PREFIX}) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def visit(anew, below):
    """`await visit(**options)`: a page that may ask for nothing outside of the path."""
    strays = []

    def note(address):
        if not address.partition(below.url.partition(":")[2])[2].startswith(PREFIX):
            strays.append(address)

    def note_answer(answer):
        if answer.status >= 400:
            strays.append(answer.url)

    async def visit(**options):
        page = await anew(below, **options)
        page.on("request", lambda request: note(request.url))
        page.on("websocket", lambda socket: note(socket.url))
        page.on("response", note_answer)
        page.on("pageerror", lambda error: strays.append(str(error)))
        await page.goto(f"{PREFIX}/")
        return page

    yield visit
    assert not strays


async def press_start(page, speed):
    await page.get_by_label("Speed").fill(str(speed))
    await page.get_by_role("button", name="Start").click()
    await page.wait_for_url(f"**{PREFIX}/runs/*/")


async def test_start_by_socket(visit):
    page = await visit()
    await press_start(page, 20)
    await expect(bar(page, state="running", connection="live")).to_be_visible()
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()
    await page.get_by_role("link", name="My runs").click()
    await page.locator("main .runs").get_by_role("link").click()
    await expect(page.locator("#receipt")).to_be_visible()
    await page.get_by_role("button", name="Run again").click()
    await expect(bar(page, state="running", connection="live")).to_be_visible()


async def test_start_by_polling(visit):
    page = await visit()
    await page.route_web_socket("**/ws/**", lambda socket: socket.close(code=1011))
    await press_start(page, 20)
    await expect(bar(page, connection="polling")).to_be_visible()
    await expect(bar(page, state="succeeded")).to_be_visible()


async def test_start_without_scripts(visit):
    page = await visit(java_script_enabled=False)
    await press_start(page, 0.5)
    await expect(bar(page, state="running")).to_be_visible()
    await expect(part(page, "percent")).to_contain_text("%")
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()


async def test_signing_up_leads_to_the_runs(visit):
    page = await visit()
    await page.get_by_role("link", name="Sign in").click()
    await page.get_by_role("link", name="Sign up").click()
    await page.get_by_label("Username").fill("ann")
    for field in await page.locator("input[type=password]").all():
        await field.fill("a sentence of some length")
    await page.locator("main button").click()
    await page.wait_for_url(f"**{PREFIX}/runs/")
