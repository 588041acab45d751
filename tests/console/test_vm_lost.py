"""A VM whose node is lost: what the page says, and how an operator gives it up."""

from playwright.async_api import Browser, expect

from runtime.bus.accounts.table import SIMULATION
from tests.console.bed import bed, needs_browser
from tests.console.test_journey import VMS, vm
from tests.console.test_vm_refused import judged, phased

pytestmark = needs_browser


async def test_a_vm_of_a_lost_node_is_forgotten(chromium: Browser) -> None:
    async with bed(NEBULA_NODE_TIMEOUT="3") as cloud:
        one = await vm(cloud, "gone")
        page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
        await expect(page.get_by_role("heading", name="gone", level=1)).to_be_visible()
        node = (await cloud.send("GET", f"/v1/projects/default/vms/{one}"))["node"]
        await cloud.cloud.stop(SIMULATION)
        await phased(cloud, one, "lost")
        await expect(page.get_by_text("Lost", exact=True).first).to_be_visible()
        await expect(page.get_by_text(f"Node {node} is lost, and the VM with it")).to_be_visible()
        whys = await judged(page, cloud, one)
        assert "its node is lost" in whys["start"]
        await page.get_by_role("menuitem", name="Forget", exact=True).click()
        dialog = page.get_by_role("dialog", name="Forget: gone")
        await expect(dialog).to_contain_text(f"Node {node} is lost")
        button = dialog.get_by_role("button", name="Forget", exact=True)
        await dialog.get_by_label("Reason").fill("the host burnt down")
        await expect(button).to_be_disabled()
        await dialog.get_by_label("Type gone to confirm").fill("gon")
        await expect(button).to_be_disabled()
        await dialog.get_by_label("Type gone to confirm").fill("gone")
        await expect(dialog.get_by_text("nebula vm forget gone --reason 'the host burnt down'")).to_have_count(1)
        await dialog.get_by_label("Type gone to confirm").press("Enter")
        await expect(page.get_by_text("Deleted", exact=True).first).to_be_visible()
        await expect(page.get_by_text("the host burnt down").first).to_be_visible()
        await expect(page.get_by_role("button", name="More actions")).to_have_count(0)
