"""Changing a VM on its page, in a browser."""

from playwright.async_api import Browser, expect

from tests.console.bed import Bed, needs_browser
from tests.console.test_guests import VMS, vm

pytestmark = needs_browser


async def test_a_vm_is_edited_and_resized(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "old-name")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("menuitem", name="Edit").click()
    dialog = page.get_by_role("dialog", name="Edit: old-name")
    await expect(dialog.get_by_role("button", name="Save")).to_be_disabled()
    await dialog.get_by_label("Name").fill("Not A Name!")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    await dialog.get_by_label("Name").fill("new-name")
    await dialog.get_by_label("Description").fill("<b>the shop</b>")
    await dialog.get_by_label("Labels").fill("=blue")
    await expect(dialog.get_by_role("button", name="Save")).to_be_disabled()
    await dialog.get_by_label("Labels").fill("team=blue")
    await dialog.get_by_label("Protected").check()
    await dialog.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("heading", name="new-name")).to_be_visible()
    await expect(page.get_by_text("<b>the shop</b>")).to_be_visible()
    await expect(page.get_by_text("team=blue")).to_be_visible()
    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("menuitem", name="Resize").click()
    dialog = page.get_by_role("dialog", name="Resize: new-name")
    await dialog.get_by_label("Disk in GiB").fill("1")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_label("Disk in GiB")).to_have_attribute("aria-invalid", "true")
    await dialog.get_by_label("Disk in GiB").fill("5")
    await dialog.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("1 CPU, 512 MiB memory, 5 GiB disk")).to_be_visible()
    found = await cloud.send("GET", f"/v1/projects/default/vms/{one}")
    assert (found["name"], found["labels"], found["protected"]) == ("new-name", {"team": "blue"}, True)
    assert (found["disk_gib"], found["pending_resize"]) == (5, True)
    await cloud.send("PATCH", f"/v1/projects/default/vms/{one}?wait=30s", {"protected": False})
