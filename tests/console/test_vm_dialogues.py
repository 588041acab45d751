"""The dialogues of a VM's page, by keyboard: rebuild, rescue, stop and others; what they say, send, and refuse."""

from playwright.async_api import Browser, Locator, Page, expect

from tests.console.axe import faults
from tests.console.bed import Bed, needs_browser
from tests.console.test_journey import VMS, vm
from tests.console.test_vm_refused import sent
from tests.waiting import eventually

pytestmark = needs_browser
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f somebody"


async def opened(page: Page, action: str, name: str) -> Locator:
    """Open a dialogue from the menu, by keys alone."""
    menu = page.get_by_role("button", name="More actions")
    await menu.focus()
    await page.keyboard.press("Enter")
    item = page.get_by_role("menuitem", name=action, exact=True)
    await expect(item).to_be_visible()
    for _ in range(20):
        if await item.evaluate("each => each === document.activeElement"):
            break
        await page.keyboard.press("ArrowDown")
    await expect(item).to_be_focused()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=f"{action}: {name}")
    await expect(dialog).to_be_visible()
    return dialog


async def test_a_vm_is_rebuilt(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "fresh", user_data="#cloud-config\n", ssh_keys=[KEY])
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    dialog = await opened(page, "Rebuild", "fresh")
    await expect(dialog).to_contain_text("The disk of fresh is deleted, with everything on it")
    await expect(dialog).to_contain_text("powered off without a shutdown")
    assert await faults(page, "dialog") == []
    button = dialog.get_by_role("button", name="Rebuild", exact=True)
    await expect(button).to_be_disabled()
    await dialog.get_by_label("Type fresh to confirm").fill("fresh")
    await expect(button).to_be_enabled()
    await dialog.get_by_label("SSH keys for the new disk").select_option("new")
    await dialog.get_by_label("SSH keys", exact=False).last.fill("no key at all")
    await dialog.get_by_label("User-data for the new disk").select_option("new")
    data = dialog.locator("textarea[name=user_data]")
    await expect(button).to_be_disabled()
    await data.fill("echo hello")
    await expect(dialog.get_by_text("begin with the line #cloud-config")).to_be_visible()
    await data.fill("#cloud-config\npackages: [vim]\n")
    await button.click()
    await expect(dialog.locator("textarea[name=ssh_keys]")).to_have_attribute("aria-invalid", "true")
    await dialog.get_by_label("SSH keys for the new disk").select_option("keep")
    await dialog.get_by_text("The same without the console").click()
    await expect(dialog.get_by_text("nebula vm rebuild fresh --user-data FILE --project default")).to_be_visible()
    await dialog.get_by_label("Type fresh to confirm").press("Enter")
    await expect(page.get_by_text("Rebuild requested, from image blank").first).to_be_visible()
    await expect(page.get_by_text("; rebuilt 1 time")).to_be_visible()
    found = await cloud.send("GET", f"/v1/projects/default/vms/{one}")
    assert (found["rebuilds"], found["has_user_data"], found["ssh_keys"]) == (1, True, [KEY])

    dialog = await opened(page, "Rebuild", "fresh")
    await dialog.get_by_label("User-data for the new disk").select_option("none")
    await dialog.get_by_label("Type fresh to confirm").fill("fresh")
    await dialog.get_by_label("Type fresh to confirm").press("Enter")
    await expect(page.get_by_text("; rebuilt 2 times")).to_be_visible()
    found = await cloud.send("GET", f"/v1/projects/default/vms/{one}")
    assert (found["has_user_data"], found["ssh_keys"]) == (False, [KEY])


async def test_a_vm_is_rescued_and_back(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "broken")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    dialog = await opened(page, "Rescue", "broken")
    await expect(dialog).to_contain_text("with its own disk as the second one")
    assert await faults(page, "dialog") == []
    await dialog.get_by_label("Seconds to shut down").fill("99999")
    await dialog.get_by_role("button", name="Rescue", exact=True).click()
    assert await dialog.locator("input[name=grace_seconds]:invalid").count() == 1, "the browser holds it back"
    await dialog.get_by_label("By force").check()
    await expect(dialog.get_by_label("Seconds to shut down")).to_have_count(0)
    await dialog.get_by_role("button", name="Rescue", exact=True).press("Enter")
    await expect(page.get_by_text("in rescue", exact=True)).to_be_visible()
    await expect(page.get_by_text("in rescue from blank")).to_be_visible()
    await expect(page.get_by_text("Running", exact=True).first).to_be_visible()
    dialog = await opened(page, "End the rescue", "broken")
    await expect(dialog).to_contain_text("The rescue disk is deleted.")
    await dialog.get_by_label("Seconds to shut down").fill("1")
    await dialog.get_by_label("Seconds to shut down").press("Enter")
    await expect(page.get_by_text("in rescue", exact=True)).to_have_count(0)
    await expect(page.get_by_text("End of the rescue requested").first).to_be_visible()


async def test_a_paused_vm_is_stopped_by_force_only(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "frozen")
    await sent(cloud, one, "pause")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    await page.get_by_role("button", name="Stop", exact=True).press("Enter")
    dialog = page.get_by_role("dialog", name="Stop: frozen")
    await expect(dialog.get_by_label("By force")).to_be_checked()
    await expect(dialog.get_by_text("Without force:")).to_contain_text("resume it first")
    await dialog.get_by_role("button", name="Stop", exact=True).press("Enter")
    await expect(page.get_by_text("Stopped", exact=True).first).to_be_visible()
    await page.get_by_role("button", name="Start", exact=True).press("Enter")
    await (
        page.get_by_role("dialog", name="Start: frozen").get_by_role("button", name="Start", exact=True).press("Enter")
    )
    await expect(page.get_by_text("Running", exact=True).first).to_be_visible()
    await page.get_by_role("button", name="Stop", exact=True).press("Enter")
    await dialog.get_by_label("Seconds to shut down").fill("5")
    await expect(dialog.get_by_text("nebula vm stop frozen --grace 5 --project default")).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_role("button", name="Stop", exact=True)).to_be_focused()


async def test_each_fact_of_a_vm_is_there(chromium: Browser, cloud: Bed) -> None:
    region = (await cloud.send("GET", "/v1/nodes"))["items"][0]["region"]
    await cloud.send("POST", "/v1/tags?wait=30s", {"id": "facts", "name": "Facts"})
    more = {"region": region, "tags": ["facts"], "labels": {"team": "blue"}, "ssh_keys": [KEY], "protected": True}
    one = await vm(cloud, "known", **more, restart_policy="always", watchdog="reset", description="what is known")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}", permissions=["clipboard-read", "clipboard-write"])
    facts = page.locator(".facts")

    async def known() -> bool:
        found = await cloud.send("GET", f"/v1/projects/default/vms/{one}")
        return bool(found["ready"] and found["address_sources"])

    await eventually(known, "the guest is ready and has an address", 30)
    found = await cloud.send("GET", f"/v1/projects/default/vms/{one}")
    for name, value in (
        ("Region", region),
        ("Tags", "facts"),
        ("Labels", "team=blue"),
        ("Wanted", "On"),
        ("Restarts by itself", "Always"),
        ("Watchdog", "Reset"),
        ("Protected", "cannot be deleted"),
        ("Boots", "1 of the guest, 1 of them ordered"),
        ("Node", found["node"]),
        ("MAC", found["mac"]),
        ("Description", "what is known"),
    ):
        await expect(facts.locator(f"div:has(> dt:text-is('{name}')) dd")).to_contain_text(value)
    await facts.get_by_text("1 key", exact=True).click()
    await expect(facts.get_by_text(KEY)).to_be_visible()
    address = found["address_sources"][0]
    await expect(facts.get_by_text(address["address"], exact=True)).to_be_visible()
    await facts.get_by_role("button", name=f"Copy {address['address']}").press("Enter")
    assert await page.evaluate("navigator.clipboard.readText()") == address["address"]
    considered = facts.locator("div:has(> dt:text-is('Nodes considered')) dd")
    await considered.locator("summary").press("Enter")
    await expect(considered.get_by_role("listitem").filter(has_text=f"{found['node']}: chosen")).to_have_count(1)
    for key in found["host_keys"]:
        await expect(facts.get_by_text(key["fingerprint"], exact=True)).to_be_visible()
    assert found["host_keys"], "a simulated guest has host keys"
    await facts.get_by_role("button", name="Copy as known_hosts lines").press("Enter")
    key = found["host_keys"][0]
    line = f"{','.join(found['addresses'])} {key['type']} {key['key']}\n"
    assert line in await page.evaluate("navigator.clipboard.readText()")
