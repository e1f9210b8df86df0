"""The second language, from the button to the worker's own words."""

from playwright.async_api import expect

from tests.browser.conftest import bar, begin, part


async def test_who_speaks_german_is_answered_in_german(anew, stack):
    page = await anew(stack, locale="de")
    await page.goto("/trouble/")
    await page.get_by_label("Sekunden").fill("2")
    await page.get_by_role("button", name="Scheitert bei 60 %").click()
    await expect(bar(page, state="failed")).to_be_visible()
    await expect(part(page, "state")).to_have_text("Fehlgeschlagen")
    await expect(part(page, "error")).to_have_text("Schritt 61 von 100 fehlt.")
    await expect(part(page, "count")).to_have_text("60 / 100 Schritte")
    await expect(page.get_by_text("60 Schritte", exact=True)).to_be_visible()


async def test_the_start_button_speaks_it_over_its_socket_too(anew, stack):
    page = await anew(stack, locale="de")
    await page.goto("/")
    await page.get_by_label("Geschwindigkeit").fill("50")
    await page.get_by_role("button", name="START").click()
    await expect(bar(page, state="succeeded")).to_be_visible()
    await expect(part(page, "title")).to_have_text("Zufällige Schritte")
    await expect(part(page, "percent")).to_have_text("100\u00a0%")


async def test_the_title_writes_its_percent_as_the_language_does(anew, stack):
    page = await anew(stack, locale="de")
    await page.goto("/")
    await begin(page, "gen_random", speed=0.5)
    await page.goto("/trouble/")
    await page.wait_for_function(r"() => /^\(1\) \d+\u00a0% /.test(document.title)")


async def test_the_language_can_be_changed_on_every_page(page):
    await page.goto("/trouble/")
    await page.get_by_role("button", name="Deutsch").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "Wenn es schiefgeht"
    )
    await page.get_by_role("button", name="English").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "When it goes wrong"
    )
