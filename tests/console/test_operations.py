"""Operations in a browser: the list, and the way of one from its command to the guest."""

import re

from playwright.async_api import Browser, expect

from tests.console.bed import Bed, needs_browser
from tests.console.test_log import vm

pytestmark = needs_browser


async def test_an_operation_shows_its_way(chromium: Browser, cloud: Bed) -> None:
    _one, operation, position = await vm(cloud, "on-its-way")
    page = await cloud.signed_in(chromium, "admin", "/console/operations?project=default")
    row = page.get_by_role("row", name=re.compile("Create.*Succeeded")).first
    await expect(row).to_be_visible()
    await page.goto(f"/console/operations/{operation}")
    await expect(page.get_by_role("heading", name="Create: on-its-way")).to_be_visible()
    steps = page.locator(".timeline li")
    await expect(steps.filter(has_text="promise of node")).to_have_count(1)
    await expect(steps.filter(has_text="the guest answers")).to_have_count(1)
    positions = [int(each) for each in re.findall(r"position (\d+)", await page.locator(".timeline").inner_text())]
    assert positions == sorted(positions) and len(positions) >= 5
    await steps.first.get_by_role("link").click()
    await expect(page).to_have_url(re.compile(rf"/console/log/{positions[0]}$"))
    assert positions[0] <= position


async def test_a_viewer_sees_no_promise_and_no_operation_of_others(chromium: Browser, cloud: Bed) -> None:
    _one, operation, _position = await vm(cloud, "watched")
    await cloud.send("POST", "/v1/projects?wait=30s", {"id": "hidden", "name": "Hidden"})
    await cloud.send("POST", "/v1/users?wait=30s", {"id": "nobody-here", "name": "Nobody"})
    await cloud.allow(viewer="viewer@default", other="viewer@hidden")
    page = await cloud.signed_in(chromium, "viewer", f"/console/operations/{operation}")
    steps = page.locator(".timeline li")
    await expect(steps.filter(has_text="the guest answers")).to_have_count(1)
    await expect(steps.filter(has_text="promise of node")).to_have_count(0)
    await expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    stranger = await cloud.signed_in(chromium, "other", f"/console/operations/{operation}")
    said = []
    for each in (operation, "not-there"):
        await stranger.goto(f"/console/operations/{each}")
        await expect(stranger.get_by_role("alert")).to_be_visible()
        said.append((await stranger.get_by_role("alert").locator("p").first.inner_text()).replace(each, "…"))
    assert said[0] == said[1]
