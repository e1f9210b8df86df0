"""The README's pictures of the site: `python -m docs.screenshots` takes them anew."""

import asyncio
from pathlib import Path

from playwright.async_api import async_playwright, expect

from tests.conftest import CHROMIUM
from tests.stack import Stack

PICTURES = Path(__file__).parent / "screenshots"
DESKTOP = {"width": 960, "height": 900}
PHONE = {"width": 390, "height": 694}
SHOWN = "main task-progress[state={}]"


async def main():
    PICTURES.mkdir(exist_ok=True)
    expect.set_options(timeout=60_000)
    with Stack() as stack:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox"]
            )
            for take, name, scheme, size in (
                (start, "start", "light", DESKTOP),
                (receipt, "receipt", "dark", DESKTOP),
                (phone, "phone", "light", PHONE),
            ):
                context = await browser.new_context(
                    base_url=stack.url,
                    color_scheme=scheme,
                    viewport=size,
                    reduced_motion="reduce",  # a bar is where its number says
                )
                page = await context.new_page()
                await take(page)
                await page.screenshot(path=PICTURES / f"{name}.png")
                await context.close()
            await browser.close()


async def press_start(page, speed):
    await page.goto("/")
    await page.get_by_label("Speed").fill(str(speed))
    await page.get_by_role("button", name="START").click()


async def start(page):
    """A run at two thirds, with the time that is left."""
    await press_start(page, 5)
    await reach(page, 60)


async def receipt(page):
    """A run that has ended, with its receipt."""
    await page.goto("/tasks/fft_random/")
    await page.get_by_label("Transforms").fill("20000")
    await page.locator("main button").click()
    await expect(page.locator("#receipt")).to_be_visible()
    await page.mouse.move(0, 0)


async def phone(page):
    """My runs on a phone: one under way, one done, one that failed."""
    await press_start(page, 1000)
    await expect(page.locator(SHOWN.format("succeeded"))).to_be_visible()
    await page.goto("/trouble/")
    await page.get_by_label("Seconds").fill("0.5")
    await page.get_by_role("button", name="Fails at 60 %").click()
    await expect(page.locator(SHOWN.format("failed"))).to_be_visible()
    await press_start(page, 3)
    await reach(page, 30)
    await page.goto("/runs/")
    await expect(page.locator("[connection=live]").first).to_be_visible()


async def reach(page, percent):
    await page.wait_for_function(
        "percent => document.querySelector('main progress').value >= percent",
        arg=percent,
    )


if __name__ == "__main__":
    asyncio.run(main())
