"""What holds for every page of the menu."""

import pytest
from playwright.async_api import Browser, expect

from tests.console.bed import IMAGE, Bed, needs_browser
from tests.console.test_journey import AXE, RULES, SUMMARY
from tests.console.test_log import vm

pytestmark = needs_browser


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
async def test_everybody_can_use_them(chromium: Browser, cloud: Bed, scheme: str, width: int) -> None:
    """axe finds nothing, and nothing is wider than a phone, on the pages that are not of VMs."""
    _one, operation, position = await vm(cloud, "seen-by-all")
    await cloud.send("POST", "/v1/tags?wait=30s", {"name": f"Seen by all at {width}"})
    node = (await cloud.send("GET", "/v1/nodes"))["items"][0]["id"]
    lists = ["log", "operations", "nodes", "projects", "images", "flavors", "tags", "users", "service-accounts"]
    lists += ["tokens", "status", "parked", "refusals"]
    single = [f"log/{position}", f"operations/{operation}", f"nodes/{node}", "projects/default", f"images/{IMAGE}"]
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 844}}
    page = await cloud.signed_in(chromium, "admin", "/", **look)
    found = {}
    for address in [*lists, *single]:
        await page.goto(f"/console/{address}")
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        await expect(page.get_by_text("reading…")).to_have_count(0)
        await page.evaluate(AXE.read_text())
        found[address] = await page.evaluate(f"axe.run({RULES}).then({SUMMARY})")
        if not await page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            found[address].append("it is too wide")
    assert {address: wrong for address, wrong in found.items() if wrong} == {}
