"""Images in a browser: registered, refused, rejected, deleted; nothing of their text becomes a link or markup."""

import re

from playwright.async_api import Browser, expect

from tests.console.bed import IMAGE, Bed, needs_browser

pytestmark = needs_browser
DANGER = "javascript:alert(1)"


async def test_an_image_is_registered_and_rejected_with_its_reason(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin", "/console/images")
    await page.get_by_role("button", name="Register image").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("textbox", name=re.compile("^Id")).fill("not-there")
    await dialog.get_by_label("Source").fill(DANGER)
    await dialog.get_by_role("button", name="Register").click()
    await expect(dialog.get_by_label("Source")).to_have_attribute("aria-invalid", "true")
    await dialog.get_by_label("Source").fill("/nowhere/not-there.qcow2")
    await dialog.get_by_label("Description").fill("<b>bold</b>")
    await dialog.get_by_role("button", name="Register").click()
    await expect(page).to_have_url(re.compile("/console/images/not-there$"))
    await expect(page.get_by_text("Rejected").first).to_be_visible()
    reason = (await cloud.send("GET", "/v1/images/not-there"))["failure"]
    assert reason
    await expect(page.get_by_text(reason).first).to_be_visible()
    await expect(page.get_by_text("<b>bold</b>")).to_be_visible()
    await page.get_by_role("button", name="Delete").click()
    await dialog.get_by_label("Type not-there to confirm").fill("not-there")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(page).to_have_url(re.compile("/console/images$"))
    await expect(page.get_by_role("link", name=IMAGE)).to_be_visible()
    await expect(page.get_by_role("row", name="not-there")).to_have_count(0)


async def test_a_viewer_reads_images_only(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(viewer="viewer@default")
    page = await cloud.signed_in(chromium, "viewer", "/console/images")
    await page.get_by_role("link", name=IMAGE).click()
    await expect(page.get_by_role("heading", name="What it is")).to_be_visible()
    await expect(page.get_by_role("button", name="Delete")).to_have_count(0)
    await page.get_by_role("navigation", name="Path").get_by_role("link", name="Images").click()
    await expect(page.get_by_role("button", name="Register image")).to_have_count(0)
    await expect(page.get_by_role("link", name=IMAGE)).to_be_visible()
