"""Projects in a browser: made, shared, changed and deleted, by the roles that may."""

import re

from playwright.async_api import Browser, expect

from tests.console.bed import Bed, needs_browser
from tests.console.test_log import vm

pytestmark = needs_browser
HOSTILE = "<img src=x onerror=document.title='owned'>"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEaXmP2RSoz3aJm5mNnBqcbzLUp1VxZGnRkx8tfvJkQy ann@host"


async def test_a_project_from_its_creation_to_its_end(chromium: Browser, cloud: Bed) -> None:
    await cloud.send("POST", "/v1/users?wait=30s", {"id": "ann", "name": "Ann"})
    page = await cloud.signed_in(chromium, "admin", "/console/projects")
    await page.get_by_role("button", name="Create project").first.click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill(HOSTILE)
    await dialog.get_by_role("textbox", name="Id").fill("Not An Id")
    await dialog.get_by_role("button", name="Create").click()
    await expect(dialog.get_by_role("textbox", name="Id")).to_have_attribute("aria-invalid", "true")
    await dialog.get_by_role("textbox", name="Id").fill("shared")
    await dialog.get_by_role("button", name="Create").click()
    await expect(page).to_have_url(re.compile("/console/projects/shared$"))
    await expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    assert "owned" not in await page.title() or HOSTILE in await page.title()

    await page.get_by_role("button", name="Give a role").click()
    await dialog.get_by_label("To whom").fill("user:ann")
    await dialog.get_by_label("Role").select_option("member")
    await dialog.get_by_role("button", name="Give").click()
    await expect(page.get_by_role("listitem").filter(has_text="user:ann").first).to_contain_text("Member")
    await page.get_by_role("button", name="Change").click()
    await dialog.get_by_label("SSH keys").fill("not a key")
    await dialog.get_by_role("button", name="Change").click()
    await expect(dialog.get_by_label("SSH keys")).to_have_attribute("aria-invalid", "true")
    await dialog.get_by_label("SSH keys").fill(KEY)
    await dialog.get_by_role("button", name="Change").click()
    await expect(page.get_by_role("heading", name="1 SSH key")).to_be_visible()

    one, _operation, _position = await vm(cloud, "keeps-it", "shared")
    await expect(page.get_by_role("row", name=re.compile("^VMs 1 1"))).to_be_visible()
    await page.get_by_role("button", name="Delete").click()
    await dialog.get_by_label("Type shared to confirm").fill("shared")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("VM")
    await cloud.send("DELETE", f"/v1/projects/shared/vms/{one}?wait=30s")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(page).to_have_url(re.compile("/console/projects$"))
    await expect(page.get_by_text(HOSTILE)).to_have_count(0)


async def test_each_role_sees_what_it_may_do(chromium: Browser, cloud: Bed) -> None:
    await cloud.send("POST", "/v1/users?wait=30s", {"id": "bob", "name": "Bob"})
    await cloud.send("POST", "/v1/projects/default/bind?wait=30s", {"principal": "user:bob", "role": "viewer"})
    await cloud.allow(viewer="viewer@default", manager="admin@default", auditor="auditor")
    for name, may in (("viewer", False), ("auditor", False), ("manager", True)):
        page = await cloud.signed_in(chromium, name, "/console/projects/default")
        await expect(page.get_by_role("heading", name="What it uses")).to_be_visible()
        for button in ("Give a role", "Change", "Take the role of user:bob"):
            await expect(page.get_by_role("button", name=button, exact=True)).to_have_count(1 if may else 0)
        await expect(page.get_by_role("button", name="Delete")).to_have_count(0)
    await page.get_by_role("button", name="Take the role of user:bob").click()
    await page.get_by_role("dialog").get_by_role("button", name="Take away").click()
    await expect(page.get_by_role("button", name="Take the role of user:bob")).to_have_count(0)
    said = []
    await cloud.send("POST", "/v1/projects?wait=30s", {"id": "secret-one", "name": "Secret"})
    for project in ("secret-one", "no-such-one"):
        await page.goto(f"/console/projects/{project}")
        await expect(page.get_by_role("alert")).to_be_visible()
        said.append((await page.get_by_role("alert").locator("p").first.inner_text()).replace(project, "…"))
    assert said[0] == said[1]
