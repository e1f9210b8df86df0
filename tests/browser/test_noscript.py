"""Without scripts: each task can be started, followed and cancelled."""

import pytest_asyncio
from playwright.async_api import expect

from tests.browser.conftest import bar, part, verb

ROWS = b"when,sensor,value\n2025-03-01T12:00:00Z,attic,18.4\n"


@pytest_asyncio.fixture(loop_scope="session")
async def plain(anew, stack):
    return await anew(stack, java_script_enabled=False)


async def cancel(page, state="running"):
    await expect(bar(page, state=state)).to_be_visible()
    await verb(page, "cancel").click()
    await expect(bar(page, state="cancelled")).to_be_visible()


async def test_random_steps_are_followed_by_a_page_that_renews_itself(plain):
    await plain.goto("/")
    await plain.get_by_label("Speed").fill("3")
    await plain.get_by_role("button", name="START").click()
    await expect(part(plain, "count")).not_to_be_empty()
    before = await part(plain, "count").text_content()
    await expect(part(plain, "count")).not_to_have_text(before)
    await cancel(plain)
    await expect(plain.locator("#receipt")).to_be_visible()
    await verb(plain, "again").click()
    await cancel(plain)


async def test_fourier_transforms(plain):
    await plain.goto("/tasks/fft_random/")
    await plain.get_by_label("Transforms").fill("1000000")
    await plain.locator("main button").click()
    await cancel(plain)


async def test_a_service_elsewhere_that_is_not_there(plain):
    await plain.goto("/tasks/render_elsewhere/")
    await plain.locator("main button").click()
    await cancel(plain, "waiting")


async def test_an_import_is_paused_resumed_and_cancelled(anew, nervous_stack):
    plain = await anew(nervous_stack, java_script_enabled=False)
    file = {"name": "rows.csv", "mimeType": "text/csv", "buffer": ROWS}
    await plain.goto("/tasks/import_rows/")
    await plain.get_by_label("CSV file").set_input_files(file)
    nervous_stack.worker.freeze()  # so that it stays as it is
    try:
        await plain.get_by_role("button", name="Import").click()
        await verb(plain, "pause").click()
        await expect(bar(plain, state="paused")).to_be_visible()
        await verb(plain, "resume").click()
        await cancel(plain, "queued")
    finally:
        nervous_stack.worker.thaw()


async def test_every_trouble_can_be_started_and_cancelled(plain):
    await plain.goto("/trouble/")
    choices = plain.locator(".choices button:not([formaction*=hang_silently])")
    number = await choices.count()
    for n in range(number):
        await plain.goto("/trouble/")
        await plain.get_by_label("Seconds").fill("20")
        await choices.nth(n).click()
        await verb(plain, "cancel").click()
    await plain.goto("/runs/")
    await expect(bar(plain, state="cancelled")).to_have_count(number)


async def test_a_task_that_does_not_listen_is_forced(plain):
    await plain.goto("/trouble/")
    await plain.get_by_label("Seconds").fill("0.5")
    await plain.locator("[formaction*=hang_silently]").click()
    await expect(part(plain, "percent")).to_have_text("40%")
    await verb(plain, "cancel").click()
    force = plain.get_by_role("button", name="Force it to stop")
    percent = await part(plain, "percent").bounding_box()
    assert (await force.bounding_box())["y"] > percent["y"]  # below, with the others
    await force.click()
    await expect(bar(plain, state="cancelled")).to_be_visible()


async def test_the_tray_opens_and_leads_to_the_run(plain):
    await plain.goto("/")
    await plain.get_by_label("Speed").fill("0.5")
    await plain.get_by_role("button", name="START").click()
    await plain.goto("/tasks/fft_random/")
    await plain.get_by_role("button", name="Under way").click()
    await plain.locator("#tray").get_by_role("link", name="Random steps").click()
    await cancel(plain)
