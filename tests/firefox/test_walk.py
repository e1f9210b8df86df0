"""A walk through the site in Firefox, by mouse and by keyboard, at two widths.

`make firefox` runs it; SCREENSHOTS names a directory for what it saw.
"""

import os
import shutil
from pathlib import Path

import pytest
import pytest_asyncio

from tests.firefox.bidi import Firefox
from tests.stack import Stack

pytestmark = [pytest.mark.nightly, pytest.mark.e2e]

FIREFOX = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or "firefox"
ENTER, TAB = "\ue007", "\ue004"
FOCUSED = "document.activeElement.matches(':focus-visible')"
ROWS = "when,sensor,value\n" + "2025-03-01T12:00:00Z,attic,1\n" * 2000 + ",,\n"


@pytest.fixture(scope="module")
def site():
    with Stack() as stack:
        yield stack


@pytest_asyncio.fixture
async def firefox(tmp_path, dark):
    if not shutil.which(FIREFOX):
        pytest.fail("Firefox is missing: install it, or set FIREFOX to its path")
    async with Firefox(FIREFOX, tmp_path, dark=dark) as firefox:
        yield firefox


@pytest.fixture
def shoot(tmp_path):
    directory = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    directory.mkdir(parents=True, exist_ok=True)

    async def take(page, name):
        await page.screenshot(directory / f"{name}.png")

    return take


@pytest.mark.parametrize(("width", "dark"), [(375, True), (768, False), (1280, True)])
async def test_a_walk(firefox, site, shoot, tmp_path, width):
    page = await firefox.open(site.url, width)
    await page.goto("/")
    await shoot(page, f"start-{width}")
    await page.click("input[name=speed]")
    await page.evaluate("document.activeElement.select()")
    await page.press("2", "0", ENTER)
    await page.see("main task-progress[state=running][connection=live]")
    await page.see("main [data-part=percent]:not(:empty)")
    await shoot(page, f"running-{width}")
    await page.see("main task-progress[state=succeeded]")
    await shoot(page, f"succeeded-{width}")

    await page.goto("/trouble/")
    await page.press(TAB)
    assert await page.evaluate(FOCUSED)
    await page.click(".choices button[formaction*=no_total]")
    await page.see("main task-progress[state=running] progress:indeterminate")
    await page.see("main [data-part=count]:not(:empty)")
    await shoot(page, f"no-total-{width}")
    await page.click("main [data-verb=cancel] button")
    await page.see("main task-progress[state=cancelled]")
    await page.see("#receipt")
    await shoot(page, f"cancelled-{width}")

    table = tmp_path / "rows.csv"
    table.write_text(ROWS)
    await page.goto("/tasks/import_rows/")
    await page.choose_file("input[type=file]", table)
    await page.click("#upload button")
    await page.see("#result table")
    await shoot(page, f"imported-{width}")

    await page.goto("/runs/")
    await page.see("main .runs task-progress[state=succeeded]")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await shoot(page, f"my-runs-{width}")
    await page.click(".tray-button")
    await page.see("#tray")
    await shoot(page, f"tray-{width}")
    assert not firefox.errors
