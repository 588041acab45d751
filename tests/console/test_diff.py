"""What changed between two moments, in a browser."""

import re

from playwright.async_api import Browser, expect

from tests.console.bed import Bed, needs_browser

pytestmark = needs_browser
DIFF = "/console/diff"


async def test_changes_are_read_in_words(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(viewer="viewer@default")
    first = (await cloud.send("POST", "/v1/tags?wait=30s", {"id": "told", "name": "Told"}))["operation"]["position"]
    last = (await cloud.send("PATCH", "/v1/tags/told?wait=30s", {"name": "<b>Told again</b>"}))["operation"]["position"]
    page = await cloud.signed_in(chromium, "admin", f"{DIFF}?kind=tag&id=told&from={first - 1}")
    changes = page.get_by_label("Changes").get_by_role("listitem")
    await expect(changes).to_have_count(1)
    await expect(changes).to_contain_text("created")
    await page.get_by_label("From").fill(str(first))
    await page.get_by_label("From").press("Enter")
    await expect(page).to_have_url(re.compile(f"from={first}(&|$)"))
    await expect(changes).to_contain_text("<b>Told again</b>")
    await expect(changes).to_contain_text("admin")
    await page.get_by_label("To", exact=True).fill(str(first))
    await page.get_by_label("To", exact=True).press("Enter")
    await expect(page.get_by_role("heading", name="No changes")).to_be_visible()
    await page.get_by_label("To", exact=True).fill("yesterday")
    await page.get_by_label("To", exact=True).press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("to")
    await page.get_by_label("To", exact=True).fill(str(last))
    await page.get_by_label("To", exact=True).press("Enter")
    await page.get_by_role("button", name="Show the platform before").click()
    await expect(page).to_have_url(re.compile(f"at={first}"))
