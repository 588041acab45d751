"""Time on each page, in a browser: the keys of the slider, what changed since, addresses with moments that are none."""

import re

import pytest
from playwright.async_api import Browser, Page, expect

from tests.console.bed import IMAGE, Bed, needs_browser

pytestmark = needs_browser
VMS = "/console/projects/default/vms"
SIZE = {"image": IMAGE, "vcpus": 1, "memory_mib": 64, "disk_gib": 1}


async def at(page: Page, position: int) -> None:
    await expect(page).to_have_url(re.compile(rf"[?&]at={position}(&|$)"))


async def now(page: Page) -> None:
    await expect(page).not_to_have_url(re.compile(r"[?&]at="))


async def test_the_slider_by_its_keys(chromium: Browser, cloud: Bed) -> None:
    for number in range(12):
        await cloud.send("POST", "/v1/tags?wait=30s", {"id": f"slides-{number}", "name": "S"})
    page = await cloud.signed_in(chromium, "admin", "/console/tags")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    slider = page.get_by_role("slider", name="Moment that is shown")
    await expect(slider).to_have_attribute("aria-valuetext", "now")
    await slider.focus()
    end = int(await slider.get_attribute("max") or "0")
    await page.keyboard.press("ArrowLeft")
    await at(page, end - 1)
    await expect(slider).to_have_attribute("aria-valuetext", re.compile(rf"^position {end - 1}, about .*: \d+ events?"))
    await page.keyboard.press("ArrowLeft")
    await at(page, end - 2)
    await page.keyboard.press("ArrowRight")
    await at(page, end - 1)
    marks = [each["first"] for each in (await cloud.send("GET", "/v1/marks?buckets=200"))["items"]]
    before = max(first for first in marks if first < end - 1)
    await page.keyboard.press("Shift+ArrowLeft")
    await at(page, before)
    await page.keyboard.press("Home")
    await at(page, 1)
    await page.keyboard.press("Shift+ArrowRight")
    await at(page, min(first for first in marks if first > 1))
    await page.keyboard.press("End")
    await now(page)
    await page.get_by_role("heading", name="Tags").click()
    await page.keyboard.press("[")
    await at(page, end - 1)
    await page.keyboard.press("[")
    await at(page, end - 2)
    await page.keyboard.press("]")
    await at(page, end - 1)
    await page.keyboard.press("]")
    await now(page)
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_contain_text("what changed between the moment")


async def test_what_changed_since_is_about_the_page(chromium: Browser, cloud: Bed) -> None:
    made = await cloud.send("POST", "/v1/projects/default/vms?wait=30s", {"name": "since", **SIZE})
    vm, then = made["vm"]["id"], (await cloud.send("GET", "/v1/events?order=desc&limit=1"))["items"][0]["position"]
    await cloud.send("POST", "/v1/tags?wait=30s", {"id": "since-then", "name": "Since"})
    await cloud.send("POST", f"/v1/projects/default/vms/{vm}/stop?wait=30s", {"force": True})
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{vm}?at={then}")
    await page.locator(".band").get_by_role("link", name="What changed since").click()
    await expect(page).to_have_url(re.compile(rf"/console/diff\?kind=vm&id={vm}&project=default&from={then}$"))
    region = page.get_by_role("region", name="Changes")
    changes = region.get_by_role("listitem")
    await expect(changes).to_have_count(1)
    await expect(changes).to_contain_text("phase changed from running to stopped")
    await page.goto(f"/console/tags?at={then}")
    await expect(page.get_by_text("You see the platform as it was")).to_be_visible()
    await page.keyboard.press("d")
    await expect(page).to_have_url(re.compile(rf"/console/diff\?from={then}$"))
    await expect(region).to_contain_text("Since")
    await page.goto(f"/console/projects/default?at={then}")
    await expect(page.get_by_role("heading", name="Default")).to_be_visible()
    await page.keyboard.press("d")
    await expect(page).to_have_url(re.compile(rf"/console/diff\?project=default&from={then}$"))
    await page.goto("/console/nodes")
    await expect(page.get_by_role("heading", name="Nodes")).to_be_visible()
    await page.keyboard.press("d")
    await expect(page).to_have_url(re.compile(r"/console/diff$"))


@pytest.mark.parametrize("path", ["/console/", VMS, "/console/tags", "/console/nodes", "/console/log"])
async def test_a_moment_that_is_none_is_said(chromium: Browser, cloud: Bed, path: str) -> None:
    page = await cloud.signed_in(chromium, "admin", f"{path}?at=yesterday<b>")
    await expect(page.get_by_text("“yesterday<b>” in the address is no moment")).to_be_visible()
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await expect(page.get_by_text("You see the platform as it was")).to_have_count(0)
    await page.goto(f"{path}?at=999999999")
    await expect(
        page.get_by_text("The address names a moment that has not come yet: position 999999999")
    ).to_be_visible()
    await expect(
        page.get_by_role("heading", name="There is no such moment").or_(page.get_by_role("alert"))
    ).to_be_visible()
    await page.goto(f"{path}?at=2999-01-01T00:00:00Z")
    await expect(page.get_by_text("The address names a moment that has not come yet: 2999-01-01")).to_be_visible()
    await page.goto(f"{path}?at=2001-01-01T00:00:00Z")
    await expect(page.get_by_text(", before the first event. There was nothing yet.")).to_be_visible()
    await expect(page.get_by_role("heading", level=1).or_(page.get_by_role("alert")).first).to_be_visible()
    await page.get_by_role("button", name="Back to now").click()
    await now(page)
    await expect(page.get_by_text("before the first event")).to_have_count(0)
