"""What the person's system asks for: less motion, forced colours, right to left."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import bar, begin, part, start

MOVING = "() => document.getAnimations().map((each) => each.animationName ?? 'change')"


async def test_what_moves_by_itself_rests_on_request(page):
    await start(page, "no_total", seconds=10)
    await expect(bar(page, state="running")).to_be_visible()
    await page.wait_for_function("() => document.getAnimations().length > 0")
    assert await page.evaluate(MOVING) == ["tp-sweep"]
    await page.emulate_media(reduced_motion="reduce")
    assert await page.evaluate(MOVING) == []
    count = await part(page, "count").text_content()
    await expect(part(page, "count")).not_to_have_text(count)


async def test_a_bar_and_a_toast_come_without_a_movement_on_request(page):
    await page.emulate_media(reduced_motion="reduce")
    await page.add_init_script(
        """window.moved = [];
        for (const type of ["transitionrun", "animationstart"]) {
          addEventListener(type, (event) => moved.push(event.target.className), true);
        }"""
    )
    await page.goto("/")
    await begin(page, "fail_midway", seconds=2)
    await page.goto("/trouble/")
    await expect(page.locator(".toast")).to_be_visible()
    await start(page, "gen_random", speed=50)
    await expect(bar(page, state="succeeded")).to_be_visible()
    assert await page.evaluate("moved") == []


async def test_forced_colours_leave_a_bar_with_an_edge_and_a_fill(page):
    await page.emulate_media(forced_colors="active")
    await start(page, "fail_midway", seconds=0.5)
    await expect(bar(page, state="failed")).to_be_visible()
    edge, fill, ground = await part(page, "bar").evaluate(
        """(bar) => {
          const { borderTopWidth, color, backgroundColor } = getComputedStyle(bar);
          return [borderTopWidth, color, backgroundColor];
        }"""
    )
    assert edge == "1px"
    assert fill != ground


@pytest.mark.parametrize("path", ["/", "/trouble/", "/runs/", "/tasks/import_rows/"])
@pytest.mark.parametrize("width", [320, 1280])
async def test_nothing_leaves_the_page_from_right_to_left(page, path, width):
    await page.set_viewport_size({"width": width, "height": 800})
    await page.goto(path)
    await page.evaluate("document.documentElement.dir = 'rtl'")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    box = await page.get_by_role("link", name="Progress").bounding_box()
    assert box["x"] + box["width"] > width / 2
