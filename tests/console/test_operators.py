"""The pages of operators in a browser: processes, parked messages, refusals."""

import re

from playwright.async_api import Browser, expect

from eventstore.parking.parking import REPORTS, Parking
from tests.console.bed import Bed, needs_browser

pytestmark = needs_browser
HOSTILE = "<script>document.title = 'owned'</script>"


async def test_the_processes_and_what_was_refused(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin", "/console/status")
    processes = page.get_by_role("region", name="Processes")
    for role in ("gateway", "handlers", "projections"):
        await expect(processes.get_by_role("row", name=re.compile(f"^{role}.*Works")).first).to_be_visible()
    before = await page.get_by_text(re.compile("the log ends at position")).inner_text()
    await cloud.send("POST", "/v1/tags?wait=30s", {"name": "moves the log"})
    await expect(page.get_by_text(before, exact=True)).to_have_count(0)  # without any click
    await cloud.http.get("/v1/nodes", headers={"Authorization": f"Bearer {HOSTILE}"})
    await cloud.allow(nobody="viewer@default")
    await cloud.http.get("/v1/users", headers={"Authorization": "Bearer nobody-token"})
    await page.goto("/console/refusals")
    await expect(page.get_by_role("row", name=re.compile("403 forbidden.*nobody.*GET .v1.users")).first).to_be_visible()


async def test_a_parked_message_is_read_and_dropped(chromium: Browser, cloud: Bed) -> None:
    bus = await cloud.cloud.bus()
    try:
        for key in ("hostile-1", "hostile-2"):
            subject = "nebula.nodes.n1.reports.vm.x"
            headers, error, content = {"Nebula-Sign": HOSTILE}, f"no JSON: {HOSTILE}", HOSTILE.encode()
            parking = Parking(bus)
            await parking.park(REPORTS, key, subject=subject, position=7, error=error, body=content, headers=headers)
    finally:
        await bus.close()
    await cloud.allow(auditor="auditor")
    auditor = await cloud.signed_in(chromium, "auditor", "/console/parked")
    await auditor.get_by_role("link", name="hostile-1").click()
    await expect(auditor.get_by_text(HOSTILE, exact=True).first).to_be_visible()
    await expect(auditor.get_by_role("button", name="Drop")).to_have_count(0)
    page = await cloud.signed_in(chromium, "admin", f"/console/parked/{REPORTS}/hostile-1")
    await page.get_by_role("button", name="Drop").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Why").fill("seen <b>")
    await dialog.get_by_role("button", name="Drop").click()
    await expect(page.get_by_text("Dropped").first).to_be_visible()
    await expect(page.get_by_text("seen <b>")).to_be_visible()
    assert (await cloud.send("GET", f"/v1/parked/{REPORTS}/hostile-1"))["reason"] == "seen <b>"
    await page.goto(f"/console/parked/{REPORTS}/hostile-2")
    await page.get_by_role("button", name="Try again").click()
    await dialog.get_by_role("button", name="Try again").click()
    await expect(page.get_by_text("Retried").first).to_be_visible()
    assert await page.title() != "owned"


async def test_a_viewer_has_none_of_these_pages(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(viewer="viewer@default")
    page = await cloud.signed_in(chromium, "viewer", "/console/projects")
    menu = page.get_by_role("navigation", name="Pages")
    for name in ("Status", "Parked messages", "Refusals", "Nodes"):
        await expect(menu.get_by_role("link", name=name, exact=True)).to_have_count(0)
    for address in ("status", "parked", "refusals"):
        await page.goto(f"/console/{address}")
        await expect(page.get_by_role("alert")).to_contain_text("auditor")
