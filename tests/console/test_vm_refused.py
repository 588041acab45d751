"""What cannot be done with a VM now is said, in the words of the platform, to eyes, keys and screen readers."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from domain.vm.values import Phase
from tests.console.axe import faults
from tests.console.bed import IMAGE, Bed, needs_browser
from tests.console.test_journey import VMS, vm
from tests.waiting import eventually

pytestmark = needs_browser
BUTTONS = {"start": "Start", "stop": "Stop", "restart": "Restart", "resume": "Resume"}
TEXTS = {
    **BUTTONS,
    **{"pause": "Pause", "suspend": "Suspend", "change": "Edit", "resize": "Resize", "rescue": "Rescue"},
    **{"unrescue": "End the rescue", "retry": "Try again", "abandon": "Give up the pending operation"},
    **{"rebuild": "Rebuild", "forget": "Forget", "delete": "Delete"},
}


async def sent(cloud: Bed, one: str, verb: str, body: Any = None) -> None:
    answer = await cloud.send("POST", f"/v1/projects/default/vms/{one}/{verb}?wait=30s", body or {})
    assert answer["operation"]["status"] == "succeeded", answer


async def running(cloud: Bed) -> str:
    return await vm(cloud, "judged")


def after(*verbs: str) -> Callable[[Bed], Awaitable[str]]:
    async def made(cloud: Bed) -> str:
        one = await vm(cloud, "judged")
        for verb in verbs:
            await sent(cloud, one, verb, {"force": True} if verb in ("stop", "rescue") else {})
        return one

    return made


async def protected(cloud: Bed) -> str:
    return await vm(cloud, "judged", protected=True)


async def waiting(cloud: Bed) -> str:
    """A VM that no node has room for: the disks of all nodes are full."""

    async def nodes() -> list[dict[str, Any]]:
        return list((await cloud.send("GET", "/v1/nodes"))["items"])

    async def empty() -> bool:
        return all(node["reserved"]["disk_gib"] == 0 for node in await nodes())

    await eventually(empty, "the room of the VMs of earlier tests is free", 30)
    for node in await nodes():
        await vm(cloud, f"hog-{node['id']}", disk_gib=node["capacity"]["disk_gib"], vcpus=1, memory_mib=64)
    body = {"name": "judged", "image": IMAGE, "vcpus": 1, "memory_mib": 64, "disk_gib": 2}
    one = str((await cloud.send("POST", "/v1/projects/default/vms", body))["vm"]["id"])
    await phased(cloud, one, "unschedulable")
    return one


async def failed(cloud: Bed) -> str:
    one = await waiting(cloud)
    await cloud.send("POST", f"/v1/projects/default/vms/{one}/abandon?wait=30s", {})
    await phased(cloud, one, "failed")
    return one


async def phased(cloud: Bed, one: str, phase: str) -> None:
    async def found() -> bool:
        return bool((await cloud.send("GET", f"/v1/projects/default/vms/{one}"))["phase"] == phase)

    await eventually(found, phase, 30)


STATES = {
    "running": running,
    "stopped": after("stop"),
    "paused": after("pause"),
    "suspended": after("suspend"),
    "rescue": after("rescue"),
    "protected": protected,
    "unschedulable": waiting,
    "failed": failed,
}


async def judged(page: Page, cloud: Bed, one: str) -> dict[str, str]:
    """Compare the actions of the page with what the platform says of them; the reasons by verb."""
    said = (await cloud.send("GET", f"/v1/projects/default/vms/{one}/verbs"))["items"]
    assert {each["verb"] for each in said} == set(TEXTS), "each verb has its words here and on the page"
    await page.get_by_role("button", name="More actions").press("Enter")
    whys = {}
    for each in said:
        text = TEXTS[each["verb"]]
        item = page.get_by_role("menuitem", name=text, exact=True)
        if each["accepted"] or (each["forced"] and each["forced"]["accepted"]):
            if each["verb"] in BUTTONS:
                await expect(page.locator(".page-head").get_by_role("button", name=text, exact=True)).to_be_enabled()
            else:
                await expect(item).to_have_attribute("aria-disabled", "false")
            continue
        whys[each["verb"]] = each["why"]
        await expect(item).to_have_attribute("aria-disabled", "true")
        await expect(item).to_have_accessible_description(each["why"])
        await expect(item.get_by_text(each["why"])).to_be_visible()
    return whys


@pytest.mark.parametrize("state", STATES)
async def test_what_is_refused_says_why(chromium: Browser, cloud: Bed, state: str) -> None:
    one = await STATES[state](cloud)
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    await expect(page.get_by_role("heading", name="judged", level=1)).to_be_visible()
    whys = await judged(page, cloud, one)
    expected = {
        "running": ("start", "running"),
        "stopped": ("pause", "stopped"),
        "paused": ("rescue", "resume it first"),
        "suspended": ("pause", "suspended"),
        "rescue": ("rescue", "in rescue already"),
        "protected": ("delete", "protected"),
        "unschedulable": ("stop", "abandon it"),
        "failed": ("resume", "failed"),
    }[state]
    assert expected[1] in whys[expected[0]]
    assert "not lost" in whys.get("forget", "") or state in ("unschedulable", "failed", "protected")
    assert await faults(page) == []


async def test_a_refused_action_is_reached_by_keys_and_does_nothing(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "by-keys")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    menu = page.get_by_role("button", name="More actions")
    await menu.focus()
    await page.keyboard.press("Enter")
    start = page.get_by_role("menuitem", name="Start", exact=True)
    await expect(start).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(start).to_be_visible()
    await page.keyboard.press("End")
    await expect(page.get_by_role("menuitem", name="Delete", exact=True)).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(menu).to_be_focused()


async def test_only_an_operator_forgets(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(member="member@default")
    one = await vm(cloud, "kept")
    page = await cloud.signed_in(chromium, "member", f"{VMS}/{one}")
    await page.get_by_role("button", name="More actions").click()
    await expect(page.get_by_role("menuitem", name="Rebuild", exact=True)).to_be_visible()
    await expect(page.get_by_role("menuitem", name="Forget", exact=True)).to_have_count(0)


def test_every_phase_is_in_a_state_of_this_test() -> None:
    """`lost` is in test_vm_lost.py; a deleted VM has no verbs, and the two others last only while a node is chosen."""
    assert set(Phase) - set(STATES) == {Phase.LOST, Phase.DELETED, Phase.REQUESTED, Phase.SCHEDULED}
