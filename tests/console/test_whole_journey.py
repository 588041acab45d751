"""The life of one VM through the whole console: by a mouse, by keys alone, on a phone; and what a viewer can do."""

import re

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from gateway.commands.actions import ACTIONS
from tests.console.bed import IMAGE, Bed, needs_browser
from tests.console.crawl import addresses, buttons, read
from tests.console.test_guests import CONNECTED, VMS, tab, vm

pytestmark = needs_browser


async def test_all_of_the_life_of_a_vm(chromium: Browser, cloud: Bed) -> None:
    """Created to ready, watched in a second page, typed at, stopped, seen as it was, compared, deleted, audited.

    In the end the token is revoked, and both pages say so.
    """
    await cloud.send("POST", "/v1/users?wait=30s", {"id": "erin", "name": "Erin"})
    await cloud.send("POST", "/v1/projects/default/bind?wait=30s", {"principal": "user:erin", "role": "member"})
    token = await cloud.send("POST", "/v1/tokens?wait=30s", {"name": "erin's", "principal": "user:erin"})
    page = await cloud.page(chromium)
    await page.goto(VMS)
    await page.get_by_label("Token").fill(token["secret"])
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    second = await page.context.new_page()
    await second.goto(VMS)
    await expect(second.get_by_text("This project has none yet.")).to_be_visible()

    await page.get_by_role("button", name="Create VM").first.click()
    dialog = page.get_by_role("dialog", name="Create a virtual machine")
    await expect(dialog.get_by_label("Image")).to_have_value(IMAGE)
    await dialog.get_by_label("Name").fill("whole-life")
    await dialog.get_by_role("button", name="Create", exact=True).click()
    await expect(dialog.get_by_text("Succeeded")).to_be_visible()
    await dialog.get_by_role("button", name="Open the VM").click()
    await expect(page.get_by_text("ready", exact=True)).to_be_visible()
    await expect(second.get_by_role("row", name=re.compile("whole-life.*Running"))).to_be_visible()
    await second.get_by_role("link", name="whole-life").click()
    await expect(second.get_by_text("ready", exact=True)).to_be_visible()
    one = page.url.rpartition("/")[2]

    await tab(page, "Console")
    await expect(page.get_by_text(CONNECTED)).to_be_visible()
    await page.keyboard.type("uname -a")
    await expect(page.locator(".xterm-rows")).to_contain_text("uname -a")
    await tab(page, "Summary")
    before = (await cloud.send("GET", f"/v1/projects/default/vms/{one}"))["position"]
    await page.get_by_role("button", name="Stop").click()
    await page.get_by_role("dialog", name="Stop: whole-life").get_by_role("button", name="Stop").click()
    await expect(second.get_by_text("Stopped").first).to_be_visible()

    await page.get_by_role("button", name=f"position {before}").click()
    await expect(
        page.get_by_text(re.compile(f"as it was at .*position {before}. Nothing can be changed"))
    ).to_be_visible()
    await expect(page.get_by_text("Running").first).to_be_visible()
    await expect(second.get_by_text("Stopped").first).to_be_visible()
    await page.keyboard.press("n")
    await expect(page.get_by_role("button", name="Start")).to_be_visible()

    await page.goto(f"/console/diff?project=default&kind=vm&id={one}&from={before}")
    change = page.get_by_label("Changes").get_by_role("listitem").first
    await expect(change).to_contain_text("whole-life")
    await expect(change).to_contain_text(re.compile("running.*stopped", re.IGNORECASE | re.DOTALL))
    await expect(change).to_contain_text("user:erin")

    await page.goto(f"{VMS}/{one}")
    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("menuitem", name="Delete").click()
    question = page.get_by_role("dialog", name="Delete: whole-life")
    await question.get_by_label("Type whole-life to confirm").fill("whole-life")
    await question.get_by_role("button", name="Delete").click()
    await expect(second.get_by_text("Deleted").first).to_be_visible()

    await page.goto(f"/console/log?id={one}")
    log = page.locator(".timeline li")
    stored = (await cloud.send("GET", f"/v1/events?vm={one}&limit=500"))["items"]
    await expect(log).to_have_count(len(stored))
    shown = await page.locator(".timeline").inner_text()
    positions = [int(each) for each in re.findall(r"position (\d+)", shown)]
    assert positions == [each["position"] for each in reversed(stored)], "each event once, the newest first"
    types = [each["type"].rsplit(".", 1)[-1] for each in stored]
    wanted = ["VmRequested", "VmScheduled", "VmStarted", "VmGuestReady", "VmConsoleOpened", "VmConsoleClosed"]
    assert [each for each in types if each in wanted] == wanted
    assert "VmStopped" in types and types[-1] == "VmDeleted"
    assert {each["actor"] for each in stored if each.get("operationid")} >= {"user:erin"}

    await cloud.send("DELETE", f"/v1/tokens/{token['token']['id']}?wait=30s")
    for each in (page, second):
        await expect(each.get_by_text(re.compile("not valid any more"))).to_be_visible()
        await expect(each.get_by_label("Token")).to_be_visible()
        await expect(each.get_by_text("whole-life")).to_have_count(0)


#: The words of what only others than viewers may do.
VERBS = re.compile(
    "^(Create|Register|Import|Delete|Start|Stop|Restart|Pause|Resume|Suspend|Edit|Change|Rename|Resize|Rebuild|Rescue|"
    "Give|Take|Issue|Revoke|Cordon|Uncordon|Retire|Add|Drop|Enable|Disable|Deprecate|Restore|Set|More actions)"
)
#: The log stops while it is read, and one may have tokens of one's own.
ALLOWED = {("/log", "Pause"), ("/tokens", "Issue a token")}


async def test_a_viewer_is_shown_no_command_and_has_none(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(viewer="viewer@default")
    one = await vm(cloud, "for-viewers")
    shown = await cloud.send("GET", f"/v1/projects/default/vms/{one}")
    operation = (await cloud.send("GET", f"/v1/events?vm={one}"))["items"][0]["operationid"]
    node = (await cloud.send("GET", "/v1/nodes"))["items"][0]["id"]
    ids = {"project": "default", "vm": one, "image": IMAGE, "node": node, "operation": operation}
    known = {**ids, "position": str(shown["position"]), "user": "u", "service_account": "s", "flavor": "f"}
    page = await cloud.signed_in(chromium, "viewer", VMS)
    offered = {}
    for path, address in addresses(known).items():
        await page.goto(address)
        await read(page)
        names = await buttons(page.locator("#main button:visible:not(.sort)"))
        if wrong := [each for each in names if VERBS.match(each) and (path, each) not in ALLOWED]:
            offered[path] = wrong
    assert offered == {}

    before = (await cloud.send("GET", "/v1/events?order=desc&limit=1"))["items"][0]["position"]
    script = """async calls => {
        const {csrf} = await (await fetch('/v1/session')).json();
        const found = [];
        for (const {method, path} of calls) {
            const headers = {'X-CSRF-Token': csrf, 'Content-Type': 'application/json'};
            const answer = await fetch(path, {method, headers, body: method === 'DELETE' ? null : '{}'});
            found.push(answer.status);
        }
        return found;
    }"""
    filled = {**known, "tag": "t", "token": "abcdefabcdef", "enrollment": "e"}
    calls = [
        {"method": each.method, "path": re.sub(r"\{(\w+)\}", lambda found: filled.get(found[1], "none"), each.path)}
        for each in ACTIONS
        if each.kind != "token"
    ]
    statuses = await page.evaluate(script, calls)
    assert len(calls) > 40
    wrong_calls = [(call, status) for call, status in zip(calls, statuses, strict=True) if status not in (403, 404)]
    assert wrong_calls == []
    assert (await cloud.send("GET", "/v1/events?order=desc&limit=1"))["items"][0]["position"] == before


async def to(page: Page, wanted: Locator, key: str = "Tab", most: int = 80) -> None:
    """Press a key until something has the focus, which then can be seen."""
    for _ in range(most):
        if await wanted.evaluate("element => element === document.activeElement"):
            break
        await page.keyboard.press(key)
    await expect(wanted).to_be_focused()
    assert await wanted.evaluate("element => element.matches(':focus-visible')")


async def test_all_of_it_by_keys(chromium: Browser, cloud: Bed) -> None:
    """No mouse is used: every step is a key."""
    page = await cloud.page(chromium)
    await page.goto("/")
    await to(page, page.get_by_label("Token"))
    await page.keyboard.type("admin-token")
    await page.keyboard.press("Enter")
    await page.get_by_role("banner").wait_for()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.goto(VMS)
    await expect(page.get_by_text("This project has none yet.")).to_be_visible()
    await to(page, page.get_by_role("button", name="Create VM").first)
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Create a virtual machine")
    await expect(dialog.get_by_label("Image")).to_have_value(IMAGE)
    await expect(dialog.get_by_label("Name")).to_be_focused()
    await page.keyboard.type("by-keys")
    await to(page, dialog.get_by_role("button", name="Create", exact=True))
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_text("Succeeded")).to_be_visible()
    await to(page, dialog.get_by_role("button", name="Close", exact=True).last)
    await page.keyboard.press("Enter")
    await expect(dialog).to_have_count(0)

    await to(page, page.get_by_role("region", name="Virtual machines of default"))
    await page.keyboard.press("Home")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="by-keys")).to_be_visible()
    before = (await cloud.send("GET", "/v1/projects/default/vms"))["items"][0]["position"]
    await to(page, page.get_by_role("link", name="Console", exact=True))
    await page.keyboard.press("Enter")
    await expect(page.get_by_text(CONNECTED)).to_be_visible()
    await page.keyboard.type("typed")
    await expect(page.locator(".xterm-rows")).to_contain_text("typed")
    await page.keyboard.press("Control+Alt+Enter")
    await to(page, page.get_by_role("link", name="Summary"), "Shift+Tab")
    await page.keyboard.press("Enter")
    await to(page, page.get_by_role("button", name="Stop"))
    await page.keyboard.press("Enter")
    question = page.get_by_role("dialog", name="Stop: by-keys")
    await to(page, question.get_by_role("button", name="Stop"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Stopped").first).to_be_visible()

    await to(page, page.get_by_role("button", name=f"position {before}"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Running").first).to_be_visible()
    slider = page.get_by_role("slider", name="Moment that is shown")
    await to(page, slider, "Shift+Tab")
    await page.keyboard.press("ArrowLeft")
    await expect(page).to_have_url(re.compile(rf"at={before - 1}"))
    await page.keyboard.press("End")
    await expect(page).not_to_have_url(re.compile("at="))

    more = page.get_by_role("button", name="More actions")
    await to(page, more)
    await page.keyboard.press("ArrowDown")
    await to(page, page.get_by_role("menuitem", name="Delete"), "ArrowDown")
    await page.keyboard.press("Enter")
    question = page.get_by_role("dialog", name="Delete: by-keys")
    await expect(question.get_by_label("Type by-keys to confirm")).to_be_focused()
    await page.keyboard.type("by-keys")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("g")
    await page.keyboard.press("v")
    await expect(page.get_by_text("This project has none yet.")).to_be_visible()


@pytest.mark.parametrize("scheme", ["dark"])
async def test_all_of_it_on_a_phone(chromium: Browser, cloud: Bed, scheme: str) -> None:
    """By taps. Nothing is wider than the screen, and what is tapped is large enough (WCAG 2.5.8)."""
    look = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": scheme}
    page = await cloud.signed_in(chromium, "admin", VMS, **look)

    async def fits(where: str) -> None:
        wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{where} is {wide} pixels too wide"

    async def tap(wanted: Locator) -> None:
        box = await wanted.bounding_box()
        assert box is not None and min(box["width"], box["height"]) >= 24, (await wanted.inner_text(), box)
        await wanted.tap()

    await tap(page.get_by_role("button", name="Menu"))
    await tap(page.get_by_role("navigation", name="Pages").get_by_role("link", name="Virtual machines"))
    await expect(page.get_by_text("This project has none yet.")).to_be_visible()
    await fits("the list")
    await tap(page.get_by_role("button", name="Create VM").first)
    dialog = page.get_by_role("dialog", name="Create a virtual machine")
    await expect(dialog.get_by_label("Image")).to_have_value(IMAGE)
    await dialog.get_by_label("Name").fill("by-taps")
    await fits("the dialogue")
    await tap(dialog.get_by_role("button", name="Create", exact=True))
    await expect(dialog.get_by_text("Succeeded")).to_be_visible()
    await tap(dialog.get_by_role("button", name="Open the VM"))
    await expect(page.get_by_text("ready", exact=True)).to_be_visible()
    await fits("its page")
    for name in ("Console", "Usage", "Summary"):
        await tap(page.locator(".tabs").get_by_role("link", name=name, exact=True))
        await expect(page.locator("[aria-busy=true]")).to_have_count(0)
        await fits(name)
    await tap(page.get_by_role("button", name="Stop"))
    await tap(page.get_by_role("dialog", name="Stop: by-taps").get_by_role("button", name="Stop"))
    await expect(page.get_by_text("Stopped").first).to_be_visible()
    await tap(page.get_by_role("button", name=re.compile(r"^position \d+$")).last)
    await expect(page.get_by_text("Nothing can be changed here.")).to_be_visible()
    await fits("the past")
    await tap(page.get_by_role("button", name="Back to now"))
    await tap(page.get_by_role("button", name="More actions"))
    await fits("a menu")
    await tap(page.get_by_role("menuitem", name="Delete"))
    question = page.get_by_role("dialog", name="Delete: by-taps")
    await question.get_by_label("Type by-taps to confirm").fill("by-taps")
    await tap(question.get_by_role("button", name="Delete"))
    await page.goto(VMS)
    await expect(page.get_by_text("This project has none yet.")).to_be_visible()
