"""axe on what a page is not at rest: its dialogues, its menus, a refusal, the past, a lost connection, empty lists.

Each of them is judged at one width, where it is harder to use; each page at rest at both (`test_pages.py`).
"""

import re

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.console.axe import faults
from tests.console.bed import IMAGE, Bed, needs_browser
from tests.console.crawl import addresses, dialogs, read, then
from tests.console.test_guests import VMS, vm

pytestmark = needs_browser
WIDE, NARROW = 1280, 390


class Judge:
    """What axe finds in the states of a page, by their names."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.found: dict[str, object] = {}

    async def look(self, name: str, inside: str = "html") -> None:
        found: list[object] = [*await faults(self.page, inside)]
        if not await self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            found.append("it is too wide")
        if found:
            self.found[name] = found


async def look_at(chromium: Browser, cloud: Bed, address: str, width: int) -> Page:
    return await cloud.signed_in(chromium, "admin", address, viewport={"width": width, "height": 844})


async def test_everybody_can_use_every_dialogue(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "with-dialogues")
    await cloud.send("POST", "/v1/tags?wait=30s", {"name": f"Dialogues at {NARROW}"})
    known = {"project": "default", "vm": one, "image": IMAGE}
    known["node"] = (await cloud.send("GET", "/v1/nodes"))["items"][0]["id"]
    page = await look_at(chromium, cloud, "/", NARROW)
    judge = Judge(page)
    seen: list[str] = []
    for path, address in addresses(known).items():
        if "/none" in address or "tab=" in address:
            continue
        await page.goto(address)
        await read(page)
        async for title in dialogs(page):
            seen.append(title)
            await judge.look(f"{path}: {title}", "dialog[open]")
            assert await page.locator("dialog[open] :focus").count() == 1, f"{title} has the focus"
    assert judge.found == {}
    words = " ".join(seen)
    for wanted in ("Create a virtual machine", "Delete: with-dialogues", "Stop: with-dialogues", "Edit: ", "Resize: "):
        assert wanted in words
    assert len(set(seen)) >= 20, seen


async def test_everybody_can_use_it_when_something_is_wrong(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "with-states")
    page = await look_at(chromium, cloud, VMS, NARROW)
    judge = Judge(page)
    await read(page)
    await page.get_by_role("searchbox").fill("fits-nothing")
    await expect(page.get_by_role("heading", name="None of them matches")).to_be_visible()
    await judge.look("nothing matches")
    await page.get_by_role("searchbox").fill("with-states")
    table = page.get_by_role("region", name="Virtual machines of default")
    await table.focus()
    await page.keyboard.press("Control+a")
    await expect(page.get_by_text(re.compile(r"^\d+ VMs? selected"))).to_be_visible()
    await judge.look("a selection")

    await page.get_by_role("button", name="Create VM").first.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_label("Image")).to_have_value(IMAGE)
    await dialog.get_by_label("Name").fill("Not A Name!")
    await dialog.get_by_label("User-data").fill("echo hello")
    await dialog.get_by_role("button", name="Create", exact=True).click()
    name = dialog.get_by_label("Name")
    await expect(name).to_have_attribute("aria-invalid", "true")
    words = await name.evaluate("""input => {
        const ids = input.getAttribute('aria-describedby').split(' ');
        return ids.map(id => document.getElementById(id).textContent).join();
    }""")
    assert words.strip(), "whoever does not see it hears what was refused"
    await judge.look("a refusal at a field", "dialog[open]")
    await page.keyboard.press("Escape")

    await page.goto(f"{VMS}/{one}")
    await read(page)
    await page.get_by_role("button", name="More actions").click()
    await judge.look("an open menu")
    await page.keyboard.press("Escape")
    for missing in (f"{VMS}/00000000-0000-4000-8000-000000000000", "/console/no/page", "/console/nodes/none"):
        await page.goto(missing)
        await expect(page.locator("#main [role=alert], #main .empty").first).to_be_visible()
        await judge.look(f"nothing is at {missing}")
    position = (await cloud.send("GET", f"/v1/projects/default/vms/{one}"))["position"]
    for address in (VMS, f"{VMS}/{one}", "/console/", "/console/nodes", "/console/projects/default"):
        await page.goto(then(address, str(position)))
        await read(page)
        await expect(page.locator(".band")).to_be_visible()
        await judge.look(f"{address} in the past")
    await page.goto(VMS)
    await read(page)
    await page.keyboard.press("?")
    await judge.look("the keys", "dialog[open]")
    await page.keyboard.press("Escape")
    await page.keyboard.press("Control+k")
    await judge.look("the search", "dialog[open]")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Menu").click()
    await judge.look("the menu of a phone")
    assert judge.found == {}


async def test_everybody_can_use_it_when_nothing_is_there(chromium: Browser, cloud: Bed) -> None:
    """Each list as if nothing was in it, and each page while its answer has not come."""
    page = await look_at(chromium, cloud, "/", WIDE)
    judge = Judge(page)
    await read(page)

    async def empty(route: Route) -> None:
        answer = await route.fetch()
        found = await answer.json() if answer.ok and "json" in answer.headers["content-type"] else {}
        if "items" in found:
            await route.fulfill(response=answer, json={**found, "items": [], "next_page_token": None})
        else:
            await route.fulfill(response=answer)

    await page.route(re.compile(r"/v1/(?!me$|session|feed|login|projects\?)"), empty)
    known = {"project": "default"}
    lists = {path: address for path, address in addresses(known).items() if "/none" not in address}
    for path, address in lists.items():
        await page.goto(address)
        await read(page)
        await judge.look(f"{path}, empty")
    await page.unroute_all(behavior="ignoreErrors")
    await page.route(re.compile(r"/v1/events\?"), lambda _route: None)
    await page.goto("/console/log")
    await expect(page.locator("[aria-busy=true]").first).to_be_visible()
    await judge.look("a page that is still read")
    await page.unroute_all(behavior="ignoreErrors")
    assert len(lists) >= 15 and judge.found == {}


@pytest.mark.parametrize("width", [WIDE, NARROW])
async def test_everybody_can_use_it_when_the_gateway_is_away(chromium: Browser, cloud: Bed, width: int) -> None:
    page = await look_at(chromium, cloud, VMS, width)
    judge = Judge(page)
    await expect(page.locator(".connection.live")).to_be_visible()
    await cloud.stop_gateway()
    await expect(page.get_by_text("Connection lost")).to_be_visible()
    await judge.look("a lost connection")
    await page.get_by_role("button", name="Create VM").first.click()
    await expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
    await judge.look("a dialogue without an answer", "dialog[open]")
    await page.keyboard.press("Escape")
    await cloud.start_gateway()
    await expect(page.locator(".connection.live")).to_be_visible()
    await page.get_by_role("button", name="Account").click()
    await judge.look("the menu of the account")
    await page.get_by_role("menuitem", name="Sign out").click()
    await expect(page.get_by_text("You are signed out.")).to_be_visible()
    await judge.look("signed out")
    await page.get_by_label("Token").fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_label("Token")).to_have_attribute("aria-invalid", "true")
    await judge.look("a wrong token")
    cloud.faults[:] = [each for each in cloud.faults if "ERR_" not in each]  # the browser says that nobody answered
    assert judge.found == {}
