"""The log and one event in a browser: search, what is live, what is proved, what somebody else may not see."""

import re

from playwright.async_api import Browser, expect

from tests.console.bed import IMAGE, Bed, needs_browser

pytestmark = needs_browser
LOG = "/console/log"


async def vm(cloud: Bed, name: str, project: str = "default", **more: object) -> tuple[str, str, int]:
    """The id of a new VM, of its operation, and the position of its request."""
    body = {"name": name, "image": IMAGE, "vcpus": 1, "memory_mib": 64, "disk_gib": 1, **more}
    answer = await cloud.send("POST", f"/v1/projects/{project}/vms?wait=30s", body)
    operation = answer["operation"]
    return answer["vm"]["id"], operation["id"], operation["position"]


async def test_the_log_follows_and_waits_for_its_reader(chromium: Browser, cloud: Bed) -> None:
    await cloud.send("POST", "/v1/tags?wait=30s", {"id": "logged", "name": "Logged"})
    page = await cloud.signed_in(chromium, "admin", f"{LOG}?kind=tag&id=logged")
    events = page.locator(".timeline li")
    await expect(events).to_have_count(1)
    await cloud.send("PATCH", "/v1/tags/logged", {"name": "<b>renamed</b>"})
    await expect(events).to_have_count(2)
    await page.get_by_role("button", name="Pause").click()
    await cloud.send("PATCH", "/v1/tags/logged", {"name": "While it is read"})
    show = page.get_by_role("button", name="Show 1 new event")
    await expect(show).to_be_visible()
    await expect(events).to_have_count(2)
    await show.click()
    await expect(events).to_have_count(3)

    for number in range(60):
        await cloud.send("PATCH", "/v1/tags/logged", {"name": f"Number {number}"})
    await page.reload()
    await expect(events).to_have_count(50)
    await page.get_by_role("button", name="Show earlier events").click()
    await expect(events).to_have_count(63)
    await expect(page.get_by_role("button", name="Show earlier events")).to_have_count(0)
    await page.evaluate("scrollTo(0, 1000)")
    await cloud.send("PATCH", "/v1/tags/logged", {"name": "The last one"})
    await show.click()
    await expect(events).to_have_count(64)


async def test_an_event_is_found_and_proved(chromium: Browser, cloud: Bed) -> None:
    one, operation, _position = await vm(cloud, "in-the-log")
    page = await cloud.signed_in(chromium, "admin", f"{LOG}?id={one}")
    await page.get_by_label("Type").fill("VmRequested")
    await page.get_by_label("Type").press("Enter")
    await expect(page).to_have_url(re.compile("type=VmRequested"))
    events = page.locator(".timeline li")
    await expect(events).to_have_count(1)
    await events.get_by_role("button").click()
    await expect(page).to_have_url(re.compile(r"/console/log/\d+$"))
    await expect(page.get_by_text("The log proves this event.")).to_be_visible()
    await expect(page.get_by_text("It is the first event of its resource.")).to_be_visible()
    await expect(page.get_by_text("It did not exist before.")).to_be_visible()
    await expect(page.get_by_text(operation).first).to_be_visible()
    await page.get_by_role("list", name="The chain of its resource").get_by_role("link").last.click()
    await expect(page.get_by_text("It names the digest of the previous event.")).to_be_visible()
    await page.get_by_role("button", name="Show the platform at this moment").click()
    await expect(page).to_have_url(re.compile(r"at=\d+"))


async def test_a_search_that_is_not_possible_says_why(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin", f"{LOG}?from=yesterday&actor=<img%20src=x>")
    await expect(page.get_by_role("alert")).to_contain_text("from")
    await expect(page.get_by_label("By whom")).to_have_value("<img src=x>")
    await page.get_by_label("From").fill("")
    await page.get_by_label("From").press("Enter")
    await expect(page.get_by_role("alert")).to_have_count(0)
    await page.get_by_role("link", name="Show all").click()
    await expect(page.locator(".timeline li").first).to_be_visible()
    await expect(page.get_by_label("By whom")).to_have_value("")


async def test_a_viewer_sees_its_project_only(chromium: Browser, cloud: Bed) -> None:
    await cloud.send("POST", "/v1/projects?wait=30s", {"id": "of-others", "name": "Of others"})
    hidden = await cloud.send("GET", "/v1/events?project=of-others&order=desc&limit=1")
    position = hidden["items"][0]["position"]
    await vm(cloud, "of-the-viewer")
    await cloud.allow(viewer="viewer@default")
    page = await cloud.signed_in(chromium, "viewer", f"{LOG}/{position}")
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(page.get_by_text("of-others")).to_have_count(0)
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Log").click()
    await expect(page.locator(".timeline li").first).to_be_visible()
    await expect(page.get_by_text("of-others")).to_have_count(0)
    said = []
    for project in ("of-others", "not-there"):
        await page.goto(f"{LOG}?project={project}")
        await expect(page.locator("#main h2, #main [role=alert]").first).to_be_visible()
        said.append((await page.locator("#main").inner_text()).replace(project, "…"))
    assert said[0] == said[1]
