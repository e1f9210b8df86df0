"""With the keyboard only: everything can be reached, seen and pressed."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import bar, begin, part, start, verb

# Where the focus is: its name, and whether that can be seen.
FOCUS = """() => {
  const element = document.activeElement;
  if (element === document.body) return null;
  const { outlineStyle, outlineWidth } = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  return {
    name: element.labels?.[0]?.textContent.trim() || element.innerText.trim(),
    outlined: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2,
    shown: box.width > 0 && box.top >= 0 && box.bottom <= innerHeight,
  };
}"""

HEADER = ["Skip to the content", "Channels Progress", "Under way", "Sign in"]
HEADER += ["Start", "Fourier", "Import", "Elsewhere", "Trouble", "My runs"]
FOOTER = ["English", "Deutsch"]


async def stops(page):
    """The names of all that the Tab key visits; each of them must be seen."""
    names = []
    while len(names) < 50:
        await page.keyboard.press("Tab")
        focus = await page.evaluate(FOCUS)
        if focus is None:
            return names
        assert focus["outlined"], focus
        assert focus["shown"], focus
        names.append(focus["name"].partition("\n")[0])
    raise AssertionError(f"The focus goes round: {names}")


async def tab_to(page, name):
    for _ in range(30):
        await page.keyboard.press("Tab")
        if (await page.evaluate(FOCUS) or {}).get("name") == name:
            return
    raise AssertionError(f"Tab never comes to {name}")


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/tasks/fft_random/", ["Transforms", "Start"]),
        ("/tasks/render_elsewhere/", ["Frames", "The service", "Start"]),
        ("/runs/", ["Sign in", "Start a run"]),
    ],
)
async def test_the_focus_walks_in_the_order_of_the_page_and_is_seen(page, path, own):
    await page.goto(path)
    assert await stops(page) == HEADER + own + FOOTER


async def test_signing_in_begins_in_its_first_field(page):
    await page.goto("/accounts/login/")
    await expect(page.get_by_label("Username")).to_be_focused()
    assert await stops(page) == ["Password", "Sign in", "Sign up", *FOOTER]


async def test_the_first_stop_leads_past_the_header(page):
    await page.goto("/")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    assert (await page.evaluate(FOCUS))["name"] == "Speed"


@pytest.mark.parametrize("key", ["Enter", "Space"])
async def test_start_and_cancel(page, key):
    await page.goto("/")
    await tab_to(page, "Speed")
    await page.keyboard.press("Control+A")
    await page.keyboard.type("0.5")
    await tab_to(page, "START")
    await page.keyboard.press(key)
    await expect(bar(page, state="running")).to_be_visible()
    await tab_to(page, "Cancel")
    await page.keyboard.press(key)
    await expect(bar(page, state="cancelled")).to_be_visible()


async def test_the_focus_stays_with_the_run_whose_button_is_gone(page):
    run = await start(page, "gen_random", speed=0.5)
    await expect(bar(page, state="running")).to_be_visible()
    await verb(page, "cancel").focus()
    await page.keyboard.press("Enter")
    await expect(bar(page, state="cancelled")).to_be_visible()
    await expect(part(page, "bar")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(verb(page, "again")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.wait_for_url(lambda url: "/runs/" in url and run not in url)


async def test_an_end_does_not_take_the_focus_away(page):
    await start(page, "gen_random", speed=30)
    await verb(page, "cancel").focus()
    await expect(bar(page, state="succeeded")).to_be_visible()
    await expect(part(page, "bar")).to_be_focused()


async def test_my_runs_lead_to_each_run(page):
    await page.goto("/")
    run = await begin(page, "gen_random", speed=1000)
    await page.goto("/runs/")
    await tab_to(page, "Random steps")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/runs/{run}/")


async def test_a_toast_is_reached_and_stays_as_long_as_somebody_is_at_it(page):
    await page.goto("/")
    await begin(page, "fail_midway", seconds=3)
    await page.goto("/trouble/")
    toast = page.locator(".toast")
    await expect(toast).to_be_visible()
    close = toast.get_by_role("button", name="Close")
    await page.get_by_role("button", name="Deutsch").focus()
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Shift+Tab")
    await expect(close).to_be_focused()
    await page.keyboard.press("Space")
    await expect(toast).to_have_count(0)
