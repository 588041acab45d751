"""What a guest shows, in a browser: its console, its usage, its display, what it has written, what it says of itself.

A test fails by its fixture if the content security policy refuses anything, since the browser reports that as an error.
"""

import re

from playwright.async_api import Browser, Page, expect

from tests.console.bed import IMAGE, Bed, needs_browser

pytestmark = needs_browser
VMS = "/console/projects/default/vms"


async def vm(cloud: Bed, name: str) -> str:
    """A VM that runs; its id."""
    body = {"name": name, "image": IMAGE, "vcpus": 1, "memory_mib": 512, "disk_gib": 4}
    made = await cloud.send("POST", "/v1/projects/default/vms?wait=30s", body)
    assert made["operation"]["status"] == "succeeded", made
    return str(made["vm"]["id"])


async def tab(page: Page, name: str) -> None:
    await page.get_by_role("navigation", name="Parts of this VM").get_by_role("link", name=name, exact=True).click()


CONNECTED = "Connected. What you type goes to the VM."
#: True colours, a title, a link, a paste bracket, a file for the clipboard, and markup.
HOSTILE = (
    "\x1b[38;2;9;200;9mgreen\x1b[0m\x1b]0;owned\x07\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07"
    "\x1b]52;c;b3duZWQ=\x07<b id=owned>"
)


async def test_a_person_types_at_the_console(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "typed")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    await tab(page, "Console")
    await expect(page).to_have_url(re.compile("tab=console"))
    await expect(page.get_by_text(CONNECTED)).to_be_visible()
    rows = page.locator(".xterm-rows")
    await page.keyboard.type("hello nebula")
    await expect(rows).to_contain_text("hello nebula")  # a simulated guest answers with what it gets
    await page.keyboard.type("?")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("Control+Alt+Enter")
    await expect(page.get_by_role("link", name="Console", exact=True)).to_be_focused()

    second = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}?tab=console")
    await expect(second.get_by_role("alert")).to_contain_text("console")
    await expect(second.get_by_role("alert")).to_contain_text("console_in_use")
    await second.get_by_role("button", name="Take it over").click()
    await expect(second.get_by_text(CONNECTED)).to_be_visible()
    await expect(page.get_by_text("has taken over")).to_be_visible()
    await second.keyboard.type("mine")
    await expect(second.locator(".xterm-rows")).to_contain_text("mine")
    await cloud.send("POST", f"/v1/projects/default/vms/{one}/stop?wait=30s", {"force": True})
    await expect(second.get_by_role("button", name="Connect again")).to_be_visible()
    await second.get_by_role("button", name="Connect again").click()
    await expect(second.get_by_role("alert")).to_contain_text("only a running VM has a console")
    await cloud.send("POST", f"/v1/projects/default/vms/{one}/start?wait=30s", {})
    await expect(second.get_by_text(CONNECTED)).to_be_visible()
    await tab(second, "Overview")
    await expect(second.locator(".xterm")).to_have_count(0)
    assert await second.evaluate("document.adoptedStyleSheets.length") == 0


async def test_what_a_guest_writes_is_only_text(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "hostile")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}?tab=console")
    await expect(page.get_by_text(CONNECTED)).to_be_visible()
    paste = """text => {
        const data = new DataTransfer();
        data.setData('text/plain', text);
        const box = document.querySelector('.xterm-helper-textarea');
        box.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true}));
    }"""
    await page.evaluate(paste, HOSTILE)
    rows = page.locator(".xterm-rows")
    await expect(rows).to_contain_text("greenlink<b id=owned>")
    colour = "[...document.querySelectorAll('.xterm-rows span')].map(span => span.style.color)"
    assert "rgb(9, 200, 9)" in await page.evaluate(colour)
    assert await page.locator("#owned").count() == 0
    assert await page.title() == "hostile · Nebula"

    await page.evaluate(paste, "one\ntwo")
    question = page.get_by_role("dialog", name="Paste several lines?")
    await expect(question).to_contain_text("two")
    await question.get_by_role("button", name="Cancel").click()
    await page.evaluate(paste, "three\nfour")
    await page.get_by_role("dialog").get_by_role("button", name="Paste", exact=True).click()
    await expect(rows).to_contain_text("four")
    await expect(rows).not_to_contain_text("two")


async def test_a_console_is_there_again_after_its_gateway(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "again")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}?tab=console")
    await expect(page.get_by_text(CONNECTED)).to_be_visible()
    await cloud.stop_gateway()
    await expect(page.get_by_text("Connecting again")).to_be_visible()
    await cloud.start_gateway()
    await expect(page.get_by_text(CONNECTED)).to_be_visible()
    await page.keyboard.type("still here")
    await expect(page.locator(".xterm-rows")).to_contain_text("still here")
    # The browser says by itself that nobody answered.
    cloud.faults[:] = [each for each in cloud.faults if not re.search("WebSocket connection to|ERR_CONNECTION", each)]


async def test_who_may_not_use_consoles_sees_none(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(viewer="viewer@default")
    one = await vm(cloud, "seen")
    page = await cloud.signed_in(chromium, "viewer", f"{VMS}/{one}?tab=console")
    await expect(page.get_by_role("heading", name="What happened")).to_be_visible()
    parts = page.get_by_role("navigation", name="Parts of this VM")
    await expect(parts.get_by_role("link", name="Overview")).to_be_visible()
    await expect(parts.get_by_role("link", name="Console", exact=True)).to_have_count(0)
