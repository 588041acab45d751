"""What happened to a VM, on its page: operations with their steps, a search, more of it; the page as it was."""

import re

from playwright.async_api import Browser, expect

from tests.console.bed import Bed, needs_browser
from tests.console.test_journey import VMS, vm
from tests.console.test_vm_refused import sent, waiting
from tests.waiting import eventually

pytestmark = needs_browser
DURATION = r"[\d.]+ (ms|s)"


async def ready(cloud: Bed, name: str) -> str:
    """A VM whose guest is ready; its id."""
    one = await vm(cloud, name)

    async def said() -> bool:
        return bool((await cloud.send("GET", f"/v1/projects/default/vms/{one}"))["ready"])

    await eventually(said, "the guest is ready", 30)
    return one


async def test_what_happened_is_told_by_operations(chromium: Browser, cloud: Bed) -> None:
    one = await ready(cloud, "told")
    await sent(cloud, one, "stop", {"force": True})
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    groups = page.locator(".history-group")
    create = groups.filter(has=page.get_by_role("link", name="Create", exact=True))
    await expect(create).to_have_count(1)
    await expect(create).to_contain_text("Succeeded")
    await expect(create).to_contain_text("by admin")
    await expect(create).to_contain_text(re.compile(rf"took {DURATION} · guest ready after {DURATION}"))
    steps = create.locator(".timeline li")
    await expect(steps.first).to_contain_text("VM requested, from image blank")
    await expect(steps.first).to_contain_text("admin asked for it")
    await expect(steps.last).to_contain_text("The guest is ready")
    await expect(steps.nth(1)).to_contain_text(
        re.compile(rf"VM placed on node [\s\S]* {DURATION} after the step before")
    )
    stop = groups.filter(has=page.get_by_role("link", name="Stop", exact=True))
    await expect(groups.first).to_contain_text("Stop requested")
    await expect(stop).to_contain_text("VM powered off without a shutdown")

    await page.get_by_role("searchbox", name="Search in what happened").fill("placed NODE")
    await expect(groups).to_have_count(1)
    await expect(page).to_have_url(re.compile("q=placed"))
    await page.get_by_role("searchbox", name="Search in what happened").fill("nothing like it")
    await expect(page.get_by_role("heading", name="No events")).to_be_visible()
    await page.get_by_role("searchbox", name="Search in what happened").fill("")
    await page.get_by_role("combobox", name="Caused by").select_option("people")
    await expect(page).to_have_url(re.compile("who=people"))
    await expect(groups).to_have_count(2)
    await page.reload()
    await expect(page.get_by_role("combobox", name="Caused by")).to_have_value("people")

    await create.get_by_role("link", name="Create", exact=True).press("Enter")
    await expect(page).to_have_url(re.compile("/console/operations/"))
    await page.go_back()
    await stop.get_by_role("link", name="Stop requested").press("Enter")
    await expect(page).to_have_url(re.compile(r"/console/log/\d+"))
    await expect(page.get_by_role("heading", name="Stop requested", level=1)).to_be_visible()


async def test_more_of_it_comes_on_demand_and_nothing_twice(chromium: Browser, cloud: Bed) -> None:
    one = await ready(cloud, "long-life")
    for number in range(60):
        await cloud.send("PATCH", f"/v1/projects/default/vms/{one}", {"description": f"number {number}"})
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    steps = page.locator(".history .timeline li")
    await expect(steps).to_have_count(50)
    await page.get_by_role("button", name="Show earlier events").press("Enter")
    await expect(steps.filter(has_text="VM requested")).to_have_count(1)
    await expect(page.get_by_role("button", name="Show earlier events")).to_have_count(0)
    await cloud.send("PATCH", f"/v1/projects/default/vms/{one}", {"description": "one more"})

    async def whole() -> bool:
        shown = re.findall(r"position (\d+)", await page.locator(".history").inner_text())
        events = (await cloud.send("GET", f"/v1/events?vm={one}&project=default&limit=500"))["items"]
        return sorted(map(int, shown)) == [each["position"] for each in events]

    await eventually(whole, "each event is there, once", 30)


async def test_an_operation_under_way_says_what_it_waits_for(chromium: Browser, cloud: Bed) -> None:
    one = await waiting(cloud)
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    progress = page.get_by_label("Operation Create")
    await expect(progress).to_contain_text("No node has room for the VM now; it waits")
    waits = progress.locator("li.waiting")
    await expect(waits).to_contain_text(re.compile(r"Waiting for room on a node \(.+: .+\)"))
    await expect(waits).to_contain_text(re.compile(r"its deadline is in \d+"))
    position = (await cloud.send("GET", f"/v1/projects/default/vms/{one}"))["position"]
    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("menuitem", name="Give up the pending operation").click()
    await page.get_by_role("dialog").get_by_role("button", name="Give up the pending operation").click()
    await expect(page.get_by_text("Failed", exact=True).first).to_be_visible()

    await page.goto(f"{VMS}/{one}?at={position}")
    then = page.get_by_label("Operation under way then")
    await expect(then).to_contain_text("Waiting for room on a node")
    await expect(then.get_by_role("link", name="Create")).to_be_visible()


async def test_the_page_as_it_was(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "earlier")
    before = (await cloud.send("GET", f"/v1/projects/default/vms/{one}"))["position"]
    await sent(cloud, one, "stop", {"force": True})
    body = {"name": "later", "labels": {"team": "blue"}}
    await cloud.send("PATCH", f"/v1/projects/default/vms/{one}?wait=30s", body)
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}?at={before}&tab=console")
    await expect(page.get_by_role("heading", name="earlier", level=1)).to_be_visible()
    await expect(page.get_by_text("Running", exact=True).first).to_be_visible()
    await expect(page.get_by_text("team=blue")).to_have_count(0)
    await expect(page.get_by_text("Stop requested")).to_have_count(0)
    await expect(page.get_by_role("navigation", name="Parts of this VM")).to_have_count(0)
    await expect(page.get_by_text("known for the present only")).to_be_visible()
    await expect(page.get_by_role("button", name="More actions")).to_have_count(0)
    await page.locator(".band").get_by_role("link", name="What changed since").press("Enter")
    await expect(page.get_by_role("heading", name="What changed", level=1)).to_be_visible()
    changes = page.get_by_label("Changes").get_by_role("listitem")
    await expect(changes).to_have_count(1)
    await expect(changes).to_contain_text("name changed from earlier to later")
    await expect(changes).to_contain_text("label team is now blue")
    await expect(page).not_to_have_url(re.compile("at="))
    await page.go_back()
    await page.keyboard.press("n")
    await expect(page.get_by_role("heading", name="later", level=1)).to_be_visible()
    await expect(page.get_by_role("alert")).to_contain_text("only a running VM has a console")
    await page.get_by_role("link", name="Summary").press("Enter")
    await expect(page.get_by_text("Stop requested")).to_have_count(1)
