"""Cancel, force, pause, resume, run again: what a person can do, and what they see."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import bar, part, start, verb


async def test_cancel(page):
    await start(page, "gen_random", speed=0.5)
    await expect(bar(page, state="running")).to_be_visible()
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()
    assert await page.locator("main progress").get_attribute("value") != "100"
    await expect(verb(page, "cancel")).to_be_hidden()
    await expect(page.get_by_role("button", name="Run again")).to_be_visible()


@pytest.mark.parametrize("width", [320, 1280])
async def test_a_double_click_on_cancel_cannot_start_anew(page, width):
    await page.set_viewport_size({"width": width, "height": 800})
    await start(page, "gen_random", speed=0.5)
    await expect(bar(page, state="running")).to_be_visible()
    cancel = await verb(page, "cancel").bounding_box()
    await verb(page, "cancel").click()
    again = page.get_by_role("button", name="Run again")
    await expect(again).to_be_visible()
    assert (await again.bounding_box())["x"] > cancel["x"] + cancel["width"]


async def test_cancel_on_the_start_page(page):
    await page.goto("/")
    await page.get_by_label("Speed").fill("0.5")
    await page.get_by_role("button", name="Start").click()
    await expect(bar(page, state="running")).to_be_visible()
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()
    await expect(page.locator("start-button")).to_have_attribute("state", "idle")


async def test_start_again_is_another_run(page):
    await page.goto("/")
    await page.get_by_label("Speed").fill("1000")
    runs = set()
    for _ in range(2):
        await page.get_by_role("button", name="Start").click()
        await expect(bar(page, state="succeeded")).to_be_visible()
        await expect(page.locator("start-button")).to_have_attribute("state", "idle")
        runs.add(await bar(page).get_attribute("run"))
        assert page.url.endswith(
            f"/runs/{runs and await bar(page).get_attribute('run')}/"
        )
    assert len(runs) == 2


REMOVE = """() => {
  window.button = document.querySelector("start-button");
  window.parent = button.parentNode;
  button.remove();
}"""
PUT_BACK = "parent.prepend(button)"


async def test_a_start_button_that_was_removed_starts_again(page):
    await page.goto("/")
    await page.get_by_label("Speed").fill("0.5")
    await page.get_by_role("button", name="Start").click()
    await expect(bar(page, state="running")).to_be_visible()
    first = await bar(page).get_attribute("run")
    await page.evaluate(REMOVE)
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()
    await page.evaluate(PUT_BACK)
    await page.get_by_label("Speed").fill("1000")
    await page.get_by_role("button", name="Start").click()
    await expect(bar(page, state="succeeded")).to_be_visible()
    assert await bar(page).get_attribute("run") != first


async def test_a_start_button_that_is_moved_goes_on(page):
    await page.goto("/")
    await page.get_by_label("Speed").fill("0.5")
    await page.get_by_role("button", name="Start").click()
    await page.evaluate(f"({REMOVE})(), {PUT_BACK}")
    await expect(bar(page, state="running")).to_be_visible()
    await expect(page.locator("start-button")).to_have_attribute("state", "running")
    await verb(page, "cancel").click()
    await expect(page.locator("start-button")).to_have_attribute("state", "idle")


async def test_a_task_that_does_not_listen_can_be_forced(page):
    await start(page, "hang_silently", seconds=0.5)
    await expect(part(page, "percent")).to_have_text("40%")
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelling")).to_be_visible()
    await expect(part(page, "line")).to_have_text(
        "Asked to stop; it will at its next step."
    )
    await expect(verb(page, "force")).to_be_hidden()
    await expect(part(page, "line")).to_contain_text("no answer")
    await verb(page, "force").click()
    await expect(bar(page, state="cancelled")).to_be_visible()
    await expect(part(page, "percent")).to_have_text("40%")


@pytest.fixture
def table(tmp_path):
    """A CSV file that takes a while."""
    path = tmp_path / "rows.csv"
    with path.open("w") as file:
        file.write("when,sensor,value\n")
        for i in range(40_000):
            file.write(f"2025-03-{i % 28 + 1:02}T12:00:00Z,s{i},{i / 7:.2f}\n")
    return path


async def test_pause_and_resume(page, table):
    await page.goto("/tasks/import_rows/")
    await page.get_by_label("CSV file").set_input_files(table)
    await page.get_by_role("button", name="Import").click()
    await page.wait_for_url("**/runs/*/")
    await verb(page, "pause").click()
    await expect(bar(page, state="paused")).to_be_visible()
    await expect(verb(page, "pause")).to_be_hidden()
    await verb(page, "resume").click()
    await expect(bar(page, state="running")).to_be_visible()
    await expect(verb(page, "resume")).to_be_hidden()
    await expect(bar(page, state="succeeded")).to_be_visible()
    await expect(page.locator("#result")).to_contain_text("40,000")


async def test_only_a_task_that_checkpoints_offers_a_pause(page):
    await start(page, "gen_random", speed=0.5)
    await expect(verb(page, "cancel")).to_be_visible()
    await expect(verb(page, "pause")).to_be_hidden()


async def test_everything_works_without_scripts(anew, stack):
    page = await anew(stack, java_script_enabled=False)
    await page.goto("/")
    await page.get_by_label("Speed").fill("0.5")
    await page.get_by_role("button", name="Start").click()
    await page.wait_for_url("**/runs/*/")
    await expect(bar(page, state="running")).to_be_visible()
    await expect(part(page, "percent")).to_contain_text("%")
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()


async def test_a_file_that_cannot_be_read_is_said_beside_its_field(
    anew, stack, tmp_path
):
    page = await anew(stack)  # whose console may speak of the 400
    table = tmp_path / "rows.csv"
    table.write_bytes(b"a,b,c\n1,2,3\n")
    await page.goto("/tasks/import_rows/")
    field = page.get_by_label("CSV file")
    await field.set_input_files(table)
    await page.get_by_role("button", name="Import").click()
    await expect(page.locator("#upload > .wrong-text")).to_contain_text("a,b,c")
    await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_role("button", name="Import")).to_be_enabled()


async def test_a_file_that_is_too_large_is_not_sent_at_all(page, tmp_path):
    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(300 * 2**20)
    await page.goto("/tasks/import_rows/")
    sent = []
    page.on("request", lambda request: sent.append(request.method))
    await page.get_by_label("CSV file").set_input_files(large)
    await page.get_by_role("button", name="Import").click()
    problem = page.locator("#upload > .wrong-text")
    await expect(problem).to_contain_text("The file has 300 MB. Allowed is a CSV file")
    await expect(page.get_by_label("CSV file")).to_be_focused()
    assert "POST" not in sent


async def test_a_file_from_a_page_that_is_too_old_says_so(anew, stack, table):
    page = await anew(stack)  # whose console may speak of the 403
    await page.goto("/tasks/import_rows/")
    await page.context.clear_cookies(name="csrftoken")
    await page.get_by_label("CSV file").set_input_files(table)
    await page.get_by_role("button", name="Import").click()
    problem = page.locator("#upload > .wrong-text")
    await expect(problem).to_have_text("This page is too old. Reload it and try again.")
