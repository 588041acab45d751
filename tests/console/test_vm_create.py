"""The dialogue of a new VM: every field, refusals at their fields, drafts, several, and the command lines beside it."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.console.bed import IMAGE, Bed, needs_browser

pytestmark = needs_browser
VMS = "/console/projects/default/vms"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqxjV6HT1b3N9NLdHgcLmeN3QjMQsvQ8ZiVqXaLJzUC ann's key"
DATA = '#cloud-config\n# it\'s "quoted" $HOME `id` \\n %s\nruncmd: []\n'
#: What differs from one VM to another, whoever makes them.
OWN = {"id", "mac", "addresses", "address_sources", "considered", "created_at", "updated_at", "started_at", "ready_at"}
OWN |= {
    "first_ready_at",
    "version",
    "position",
    "host_keys",
    "phase",
    "ready",
    "pending",
    "boots",
    "guest_boots",
    "node",
    "running_spec",
    "preparing",
}


async def opened(page: Page) -> Locator:
    await page.get_by_role("button", name="Create VM").first.click()
    dialog = page.get_by_role("dialog", name="Create a virtual machine")
    await expect(dialog.get_by_label("Image")).to_have_value(IMAGE)
    return dialog


async def filled(dialog: Locator, region: str) -> None:
    """All fields with a value that is not the usual one."""
    texts = {
        "Name": "full",
        "CPUs": "2",
        "Memory in MiB": "768",
        "Disk in GiB": "5",
        "SSH keys": KEY,
        "User-data": DATA,
    }
    texts |= {"Labels": "team=it's blue\nodd", "Tags": "blue, red", "Description": "The 'shop' & co", "Region": region}
    for label, text in texts.items():
        await dialog.get_by_label(label, exact=False).first.fill(text)
    await dialog.get_by_label("Restarts by itself").select_option("always")
    await dialog.get_by_label("Watchdog").select_option("reset")
    await dialog.get_by_label("Protected").check()


async def shell(cloud: Bed, home: Path, line: str) -> None:
    """Run a command line that the page shows, as its user would."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(home), "NEBULA_URL": cloud.url, "NEBULA_TOKEN": "admin-token"}
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", line), env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{line}\n{out.decode()}{err.decode()}"
    assert b'"status":4' not in out.replace(b" ", b""), out


async def named(cloud: Bed, name: str) -> dict[str, Any]:
    (found,) = (await cloud.send("GET", f"/v1/projects/default/vms?name={name}"))["items"]
    return {field: value for field, value in found.items() if field not in OWN}


@pytest.mark.usefixtures("tags")
async def test_the_command_lines_make_the_same_vm(chromium: Browser, cloud: Bed, tmp_path: Path) -> None:
    region = (await cloud.send("GET", "/v1/nodes"))["items"][0]["region"]
    page = await cloud.signed_in(chromium, "admin", VMS)
    dialog = await opened(page)
    await filled(dialog, region)
    lines = await dialog.locator(".command-line code").all_text_contents()
    assert len(lines) == 2
    await dialog.get_by_role("button", name="Create", exact=True).click()
    await expect(dialog.get_by_text("Succeeded")).to_be_visible()
    shown = await named(cloud, "full")
    assert shown["tags"] == ["blue", "red"] and shown["labels"] == {"odd": "", "team": "it's blue"}
    assert shown["ssh_keys"] == [KEY] and shown["has_user_data"] and shown["protected"]
    assert (shown["restart_policy"], shown["watchdog"], shown["region"]) == ("always", "reset", region)
    for number, line in enumerate(lines, start=2):
        await cloud.send(
            "PATCH", f"/v1/projects/default/vms/{await id_of(cloud, 'full')}?wait=30s", {"name": f"was-{number}"}
        )
        await shell(cloud, tmp_path, line)
        assert await named(cloud, "full") == shown, line


async def id_of(cloud: Bed, name: str) -> str:
    (found,) = (await cloud.send("GET", f"/v1/projects/default/vms?name={name}"))["items"]
    return str(found["id"])


async def test_several_are_created_with_numbers(chromium: Browser, cloud: Bed, tmp_path: Path) -> None:
    page = await cloud.signed_in(chromium, "admin", VMS)
    dialog = await opened(page)
    await dialog.get_by_label("Name").fill("web")
    await dialog.get_by_label("How many").fill("3")
    await expect(dialog.get_by_text("web-1 to web-3")).to_be_visible()
    lines = await dialog.locator(".command-line code").all_text_contents()
    await dialog.get_by_role("button", name="Create 3").click()
    await expect(page.get_by_text("Create: 3 of 3 accepted, 3 done")).to_be_visible()
    heads = page.locator(".table .row th")
    await expect(heads).to_have_count(3)
    assert sorted(await heads.all_text_contents()) == ["web-1", "web-2", "web-3"]
    for line in lines:
        await cloud.clean()
        await cloud_names(cloud, [])
        await shell(cloud, tmp_path, line)
        await cloud_names(cloud, ["web-1", "web-2", "web-3"])


async def cloud_names(cloud: Bed, expected: list[str]) -> None:
    items = (await cloud.send("GET", "/v1/projects/default/vms"))["items"]
    assert sorted(each["name"] for each in items) == expected


async def test_refusals_stand_at_their_fields_and_nothing_typed_is_lost(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin", VMS)
    dialog = await opened(page)
    await dialog.get_by_label("Name").fill("draft-1")
    await dialog.get_by_label("Tags").fill("no-such-tag")
    await dialog.get_by_label("User-data").fill(DATA)
    await dialog.get_by_label("Region").fill("Not A Region")
    await dialog.get_by_label("Watchdog").select_option("poweroff")
    await dialog.get_by_role("button", name="Create", exact=True).click()
    await expect(dialog.get_by_label("Region")).to_have_attribute("aria-invalid", "true")
    await dialog.get_by_label("Region").fill("")
    await dialog.get_by_role("button", name="Create", exact=True).click()
    await expect(dialog.get_by_label("Tags")).to_have_attribute("aria-invalid", "true")
    await expect(dialog.get_by_label("Name")).to_have_value("draft-1")
    await page.reload()
    dialog = await opened(page)
    await expect(dialog.get_by_label("Name")).to_have_value("draft-1")
    await expect(dialog.get_by_label("User-data")).to_have_value(DATA)
    await expect(dialog.get_by_label("Watchdog")).to_have_value("poweroff")
    await dialog.get_by_label("Tags").fill("")
    await dialog.get_by_role("button", name="Create", exact=True).click()
    await expect(dialog.get_by_text("Succeeded")).to_be_visible()
    await dialog.get_by_role("button", name="Close").last.click()
    dialog = await opened(page)  # what was accepted is no draft any more
    await expect(dialog.get_by_label("Name")).to_have_value("")
    await dialog.get_by_label("Name").fill("draft-2")
    await dialog.get_by_role("button", name="Start afresh").click()
    await expect(dialog.get_by_label("Name")).to_have_value("")
    await dialog.get_by_label("Name").fill("draft-3")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Account").click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await expect(page.get_by_label("Token")).to_be_visible()
    assert await page.evaluate("sessionStorage.length") == 0


async def test_a_vm_is_created_from_the_list_of_all_projects(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(member="member@default")
    page = await cloud.signed_in(chromium, "member", "/console/vms")
    await page.get_by_role("button", name="Create VM").first.click()
    dialog = page.get_by_role("dialog", name="Create a virtual machine")
    await expect(dialog.get_by_label("Project").get_by_role("option")).to_have_text(["Default"])
    await expect(dialog.get_by_label("Image")).to_have_value(IMAGE)
    await dialog.get_by_label("Name").fill("from-all")
    await dialog.get_by_role("button", name="Create", exact=True).click()
    await expect(dialog.get_by_text("Succeeded")).to_be_visible()
    await dialog.get_by_role("button", name="Close").last.click()
    await expect(page.get_by_role("row", name=re.compile("from-all.*Running"))).to_be_visible()
