"""What the tests in a browser share: starting a run, and looking at its bar."""

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.client import FINISHED
from tests.conftest import chromium
from tests.stack import Stack

PATIENCE = 60_000  # ms


def pytest_collection_modifyitems(items):
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(autouse=True)
def patience():
    expect.set_options(timeout=PATIENCE)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser():
    """One Chromium for all of them; each test has a context of its own in it."""
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def anew(browser):
    """`await anew(stack, **options)`: a page of a visitor whom nobody knows."""
    contexts = []

    async def open_page(stack, **options):
        context = await browser.new_context(base_url=stack.url, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        return await context.new_page()

    yield open_page
    for context in contexts:
        await leave(context)


async def leave(context):
    """Close it; whoever comes next finds no worker busy with what it has started."""
    listed = await context.request.get("/progress/runs/")
    for run in (await listed.json())["runs"] if listed.ok else ():
        if run["state"] not in FINISHED:
            await post(context, f"/progress/runs/{run['run']}/cancel/")
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(anew, stack):
    """A page of the site; whatever its console calls an error fails the test."""
    page = await anew(stack)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    yield page
    assert not errors, errors


@pytest.fixture(scope="session")
def nervous_stack():
    """A site that gives a worker up after 12 s of silence; tests may stop its parts."""
    env = {"PROGRESS_LOST_AFTER": "12", "PROGRESS_HEARTBEAT_INTERVAL": "0.5"}
    with Stack(env=env) as stack:
        yield stack


async def press_start(page, speed):
    """Open the START page and press its button."""
    await page.goto("/")
    await page.get_by_label("Speed").fill(str(speed))
    await page.get_by_role("button", name="Start").click()


async def start(page, task, **params):
    """Start a task over HTTP and open its run's page; returns the run's id."""
    await page.goto("/")
    run = await begin(page, task, **params)
    await page.goto(f"/runs/{run}/")
    return run


async def begin(page, task, **params):
    """Start a task over HTTP, for the viewer of an open page; returns the run's id."""
    form = {name: str(value) for name, value in params.items()}
    answer = await post(page.context, f"/progress/start/{task}/", form=form)
    assert answer.status == 202, await answer.text()
    return (await answer.json())["run"]


async def post(context, path, **options):
    """As a page of this visitor sends it, with their token against forgery."""
    cookies = {each["name"]: each["value"] for each in await context.cookies()}
    headers = {"X-CSRFToken": cookies.get("csrftoken", "")}
    return await context.request.post(path, headers=headers, **options)


async def runs_of(page):
    """What the viewer of an open page has started, as envelopes."""
    listed = await page.context.request.get("/progress/runs/")
    return (await listed.json())["runs"]


# The page's own, beside which there are a tray and toasts.


def bar(page, **attributes):
    """The element, with these attributes."""
    wanted = "".join(f"[{name}={value}]" for name, value in attributes.items())
    return page.locator(f"main task-progress{wanted}")


def part(page, name):
    return page.locator(f"main task-progress [data-part={name}]")


def verb(page, name):
    """The button of that verb."""
    return page.locator(f"main task-progress [data-verb={name}] button")


# Hands the page's hub an envelope: the one that its first element shows, changed.
RECEIVE = """async (changes) => {
  const { hubFor } = await import("/static/channels_progress/hub.js");
  const element = document.querySelector("task-progress");
  const frame = { ...element.snapshot.envelope, ...changes };
  hubFor(element.getAttribute("socket")).receive(frame);
}"""
