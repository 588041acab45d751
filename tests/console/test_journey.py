"""The pages in a browser: signing in, the overview, the table of VMs, one VM, as people use them."""

import re

from playwright.async_api import Browser, expect

from tests.console.bed import IMAGE, Bed, needs_browser

pytestmark = needs_browser
VMS = "/console/projects/default/vms"


async def test_a_person_creates_a_vm_and_watches_it(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    await expect(page.get_by_role("heading", name="2 nodes")).to_be_visible()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Virtual machines").click()
    await expect(page).to_have_url(re.compile(r"/console/projects/[a-z]+/vms$"))
    await page.get_by_role("combobox", name="Project").select_option("default")
    await expect(page).to_have_url(re.compile(VMS + "$"))
    await expect(page.get_by_text("This project has none yet.")).to_be_visible()

    await page.get_by_role("button", name="Create VM").first.click()
    dialog = page.get_by_role("dialog", name="Create a virtual machine")
    await dialog.get_by_label("Name").fill("Not A Name!")
    await expect(dialog.get_by_label("Image")).to_have_value(IMAGE)
    await dialog.get_by_label("User-data").fill("echo hello")
    await expect(dialog.get_by_text("begin with the line #cloud-config")).to_be_visible()
    await dialog.get_by_role("button", name="Create", exact=True).click()
    await expect(dialog.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    await dialog.get_by_label("Name").fill("web-1")
    await dialog.get_by_label("User-data").fill("#cloud-config\n")
    await dialog.get_by_label("Labels").fill("team=blue")
    await dialog.get_by_role("button", name="Create", exact=True).click()
    await expect(dialog.get_by_text("Succeeded")).to_be_visible()
    await dialog.get_by_role("button", name="Open the VM").click()

    await expect(page.get_by_role("heading", name="web-1")).to_be_visible()
    await expect(page.get_by_text("Running").first).to_be_visible()
    await expect(page.get_by_text("ready", exact=True)).to_be_visible()
    await expect(page.get_by_text("team=blue")).to_be_visible()
    await page.get_by_role("button", name="Stop").click()
    await page.get_by_role("dialog", name="Stop: web-1").get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("Stopped").first).to_be_visible()
    await expect(page.get_by_role("button", name="Start")).to_be_visible()

    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("menuitem", name="Delete").click()
    question = page.get_by_role("dialog", name="Delete: web-1")
    await expect(question.get_by_role("button", name="Delete")).to_be_disabled()
    await question.get_by_label("Type web-1 to confirm").fill("web-1")
    await question.get_by_role("button", name="Delete").click()
    await expect(page.get_by_text("Deleted").first).to_be_visible()
    await page.get_by_role("link", name="Virtual machines").first.click()
    await expect(page.get_by_text("This project has none yet.")).to_be_visible()
