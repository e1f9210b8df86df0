"""A person with a real Chromium: clicks START and watches."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import bar, part, press_start, runs_of


async def start_run(page, speed):
    """Press START; the run's id."""
    await press_start(page, speed)
    await expect(page.locator("main task-progress[run]")).to_be_visible()
    return await bar(page).get_attribute("run")


async def value(page):
    """The bar's value, or None while there is no number to show."""
    text = await page.locator("main progress").get_attribute("value")
    return None if text is None else float(text)


async def record_values(page):
    """Note every value that the bar takes from now on, in `window.values`."""
    await page.evaluate(
        """() => {
          const bar = document.querySelector('main progress');
          window.values = [];
          new MutationObserver(() => window.values.push(bar.value)).observe(
            bar, { attributes: true, attributeFilter: ["value"] });
        }"""
    )


async def wait_for_value(page, least):
    await page.wait_for_function(
        "least => document.querySelector('main task-progress progress').value >= least",
        arg=least,
    )


async def test_start_moves_the_bar_to_the_end(page):
    await start_run(page, 50)
    await record_values(page)
    await expect(bar(page, state="succeeded")).to_be_visible()
    values = await page.evaluate("window.values")
    assert len(values) >= 4
    assert values == sorted(values)
    assert await value(page) == 100
    await expect(part(page, "percent")).to_contain_text("100")


async def test_a_reload_shows_the_same_run_at_the_same_point(page):
    run = await start_run(page, 10)
    await wait_for_value(page, 30)
    before = await value(page)
    await page.reload()
    await expect(bar(page)).to_have_attribute("run", run)
    assert await value(page) >= before
    await expect(bar(page, state="succeeded")).to_be_visible()
    await expect(bar(page)).to_have_attribute("run", run)


async def test_a_second_tab_shows_the_same_run_and_goes_on_live(page):
    run = await start_run(page, 10)
    await wait_for_value(page, 10)
    tab = await page.context.new_page()
    await tab.goto(f"/runs/{run}/")
    await record_values(tab)
    await expect(bar(tab)).to_have_attribute("run", run)
    for each in (page, tab):
        await expect(bar(each, state="succeeded")).to_be_visible()
        assert await value(each) == 100
    assert len(await tab.evaluate("window.values")) >= 2


async def test_a_double_click_starts_one_run(page):
    starts = []
    page.on("websocket", lambda s: starts.append(s.url) if "/start/" in s.url else None)
    await page.goto("/")
    await page.get_by_label("Speed").fill("100")
    await page.get_by_role("button", name="Start").dblclick()
    await expect(bar(page, state="succeeded")).to_be_visible()
    assert len(starts) == 1
    assert len(await runs_of(page)) == 1


async def test_a_double_click_starts_one_run_without_scripts_too(anew, stack):
    page = await anew(stack, java_script_enabled=False)
    await page.goto("/")
    await page.get_by_label("Speed").fill("1000")
    await page.get_by_role("button", name="Start").dblclick()
    await page.wait_for_url("**/runs/*/")
    await expect(page.locator("main progress")).to_be_visible()
    assert len(await runs_of(page)) == 1


async def test_a_wrong_speed_is_said_beside_its_field(page):
    await page.goto("/")
    field = page.get_by_label("Speed")
    # Past the browser's own check, which the server must not rely on.
    await page.evaluate("document.querySelector('form.start').noValidate = true")
    await field.fill("0.1")
    await page.get_by_role("button", name="Start").click()
    await expect(page.locator("[data-error=speed]")).not_to_be_empty()
    await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(field).to_be_focused()


async def test_a_start_whose_run_may_not_be_seen_may_be_pressed_again(page):
    run = await start_run(page, 0.5)
    await page.evaluate(
        """async (run) => {
          const { hubFor } = await import("/static/channels_progress/hub.js");
          const element = document.querySelector("main task-progress");
          hubFor(element.getAttribute("socket"))
            .receive({ type: "error", code: "forbidden", run });
        }""",
        run,
    )
    await expect(bar(page, connection="refused")).to_be_visible()
    await expect(page.locator("start-button")).to_have_attribute("state", "idle")


async def test_the_start_page_leads_to_the_page_of_its_run(page):
    run = await start_run(page, 1000)
    await expect(bar(page, state="succeeded")).to_be_visible()  # it moves no more
    await page.get_by_role("link", name="a page of its own").click()
    await expect(bar(page, run=f"'{run}'")).to_be_visible()
    await expect(page.locator("#receipt")).to_be_visible()


async def test_html_in_a_cell_is_shown_as_text(page, tmp_path):
    table = tmp_path / "rows.csv"
    table.write_text(
        "when,sensor,value\n"
        "2025-03-01T12:00:00Z,attic,1\n"
        "2025-03-01T12:00:00Z,<img src=x onerror=alert(1)>,<b>bold</b>\n"
    )
    await page.goto("/tasks/import_rows/")
    await page.get_by_label("CSV file").set_input_files(table)
    await page.get_by_role("button", name="Import").click()
    await expect(bar(page, state="succeeded")).to_be_visible()
    await expect(page.locator("#result")).to_contain_text("<b>bold</b>")
    assert await page.locator("#result b, #result img").count() == 0


@pytest.mark.parametrize("path", ["/", "/tasks/fft_random/", "/tasks/import_rows/"])
@pytest.mark.parametrize("width", [320, 375, 1280])
async def test_no_page_scrolls_sideways(page, path, width):
    await page.set_viewport_size({"width": width, "height": 800})
    await page.goto(path)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
