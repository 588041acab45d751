"""Flavors and tags in a browser."""

import re

from playwright.async_api import Browser, expect

from tests.console.bed import Bed, needs_browser

pytestmark = needs_browser
HOSTILE = "<img src=x onerror=document.title='owned'>"


async def test_a_flavor_is_made_deprecated_and_deleted(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin", "/console/flavors")
    await page.get_by_role("button", name="Create flavor").first.click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill(HOSTILE)
    await dialog.get_by_role("textbox", name=re.compile("^Id")).fill("tiny")
    await dialog.get_by_label("CPUs").fill("0")
    await dialog.get_by_label("Labels").fill("team=blue")
    await dialog.get_by_label("CPUs").fill("2")
    await dialog.get_by_role("button", name="Create").click()
    await page.get_by_role("link", name=HOSTILE).click()
    await expect(page.get_by_text("team=blue")).to_be_visible()
    await page.get_by_role("button", name="Deprecate").click()
    await dialog.get_by_role("button", name="Deprecate").click()
    await expect(page.get_by_text("Deprecated").first).to_be_visible()
    await page.get_by_role("button", name="Restore").click()
    await dialog.get_by_role("button", name="Restore").click()
    await expect(page.get_by_role("button", name="Deprecate")).to_be_visible()
    await page.get_by_role("button", name="Change").click()
    await dialog.get_by_label("Labels").fill("team=red")
    await dialog.get_by_role("button", name="Change").click()
    await expect(page.get_by_text("team=red")).to_be_visible()
    assert (await cloud.send("GET", "/v1/flavors/tiny"))["vcpus"] == 2
    await page.get_by_role("button", name="Delete").click()
    await dialog.get_by_label("Type tiny to confirm").fill("tiny")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(page).to_have_url(re.compile("/console/flavors$"))


async def test_tags_are_made_renamed_and_deleted(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(viewer="viewer@default")
    viewer = await cloud.signed_in(chromium, "viewer", "/console/tags")
    page = await cloud.signed_in(chromium, "admin", "/console/tags")
    await page.get_by_role("button", name="Create tag").first.click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("Blue")
    await dialog.get_by_role("textbox", name=re.compile("^Id")).fill("blue")
    await dialog.get_by_role("button", name="Create").click()
    await page.get_by_role("button", name="Rename Blue").click()
    await dialog.get_by_label("Name").fill("Green")
    await dialog.get_by_role("button", name="Rename").click()
    await expect(page.get_by_role("row", name=re.compile("Green"))).to_be_visible()
    await viewer.reload()
    await expect(viewer.get_by_role("row", name=re.compile("Green"))).to_be_visible()
    await expect(viewer.get_by_role("button", name=re.compile("^(Rename|Delete|Create tag)"))).to_have_count(0)
    await page.get_by_role("button", name="Delete Green").click()
    await dialog.get_by_label("Type blue to confirm").fill("blue")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("row", name=re.compile("Green"))).to_have_count(0)
