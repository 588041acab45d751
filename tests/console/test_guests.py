"""What a guest shows, in a browser: its console, its usage, its display, what it has written, what it says of itself.

A test fails by its fixture if the content security policy refuses anything, since the browser reports that as an error.
"""

import re
import struct

import pytest
from playwright.async_api import Browser, Page, Route, WebSocketRoute, expect

from tests.console.axe import faults
from tests.console.bed import IMAGE, Bed, needs_browser
from tests.waiting import eventually

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
    await tab(second, "Summary")
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
    cloud.faults[:] = [
        each
        for each in cloud.faults
        if not re.search("WebSocket connection to|ERR_SOCKS_CONNECTION|ERR_CONNECTION", each)
    ]


async def test_who_may_not_use_consoles_sees_none(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(viewer="viewer@default")
    one = await vm(cloud, "seen")
    page = await cloud.signed_in(chromium, "viewer", f"{VMS}/{one}?tab=console")
    await expect(page.get_by_role("heading", name="What happened")).to_be_visible()
    parts = page.get_by_role("navigation", name="Parts of this VM")
    await expect(parts.get_by_role("link", name="Summary")).to_be_visible()
    await expect(parts.get_by_role("link", name="Console", exact=True)).to_have_count(0)


DRAWN = """() => [...document.querySelectorAll('.chart canvas')].filter(canvas => {
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return data.some(value => value !== 0);
}).length"""


async def test_usage_is_drawn_and_can_be_read(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(viewer="viewer@default")
    one = await vm(cloud, "busy")
    page = await cloud.signed_in(chromium, "viewer", f"{VMS}/{one}")
    await tab(page, "Usage")
    for title in ("CPU", "Memory", "Disk", "Network"):
        await expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    await expect(page.get_by_text(re.compile(r"^Memory [\d.]+ MiB of 512 MiB$"))).to_be_visible(timeout=60_000)

    async def drawn() -> bool:
        return bool(await page.evaluate(DRAWN) == 4)

    await eventually(drawn, "four charts", 30)
    await page.get_by_text("As a table").click()
    table = page.get_by_role("region", name="Usage as a table")
    await expect(table.get_by_role("row")).not_to_have_count(1)
    await expect(table.get_by_role("cell", name=re.compile("MiB")).first).to_be_visible()
    await page.get_by_role("button", name="24 hours").click()
    await expect(page.get_by_role("button", name="24 hours")).to_have_attribute("aria-pressed", "true")
    await expect(page.get_by_text("in steps of 360 s")).to_be_visible()
    await cloud.send("DELETE", f"/v1/projects/default/vms/{one}?wait=30s")
    await expect(page.get_by_text("It was deleted")).to_be_visible()
    await expect(page.get_by_role("heading", name="busy", level=1)).to_be_visible()
    await expect(page.locator(".chart")).to_have_count(0)


#: A display of one green pixel in 2 by 2, as RFB 3.8 says it: no password, 32 bits of colour, the pixels as they are.
FORMAT = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
INIT = struct.pack(">HH", 2, 2) + FORMAT + struct.pack(">I", 3) + b"tty"
UPDATE = struct.pack(">BxHHHHHi", 0, 1, 0, 0, 2, 2, 0) + bytes((0, 200, 0, 0)) * 4
GREEN = """() => {
    const canvas = document.querySelector('.display-box canvas');
    return canvas ? [...canvas.getContext('2d').getImageData(0, 0, 1, 1).data] : [];
}"""


#: noVNC looks for the members of a WebSocket in its own prototype; those of Playwright's are in that one's.
FLAT = """
const Routed = globalThis.WebSocket;
globalThis.WebSocket = function (url, protocols) {
    const made = new Routed(url, protocols);
    const flat = Object.create(EventTarget.prototype);
    for (let from = Object.getPrototypeOf(made); from !== EventTarget.prototype; from = Object.getPrototypeOf(from))
        for (const [name, member] of Object.entries(Object.getOwnPropertyDescriptors(from)))
            if (!Object.hasOwn(flat, name)) Object.defineProperty(flat, name, member);
    return Object.setPrototypeOf(made, flat);
};
Object.assign(globalThis.WebSocket, {CONNECTING: 0, OPEN: 1, CLOSING: 2, CLOSED: 3});
"""


async def test_a_display_is_shown_and_gets_keys(chromium: Browser, cloud: Bed) -> None:
    """A simulated guest has none, which is said. What a display sends comes from this test then."""
    one = await vm(cloud, "seen")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}?tab=display")
    await expect(page.get_by_role("alert")).to_contain_text("no_display")
    got: list[bytes] = []

    def speak(socket: WebSocketRoute) -> None:
        def answer(message: str | bytes) -> None:
            sent = message if isinstance(message, bytes) else message.encode()
            got.append(sent)
            replies = {1: b"\x01\x01", 2: bytes(4), 3: INIT}
            if reply := replies.get(len(got)):
                socket.send(reply)
            elif sent[0] == 3 and len(got) < 8:  # it wants to know what is new
                socket.send(UPDATE)

        socket.on_message(answer)
        socket.send(b"RFB 003.008\n")

    await page.route_web_socket(re.compile("/vnc"), speak)
    await page.add_init_script(FLAT)
    await page.reload()
    await expect(page.get_by_text("Connected.", exact=True)).to_be_visible()
    assert got[0] == b"RFB 003.008\n"

    async def drawn() -> bool:
        return bool(await page.evaluate(GREEN) == [0, 200, 0, 255])

    await eventually(drawn, "the display is green", 30)
    await page.keyboard.press("x")

    def keys() -> set[int]:
        return {struct.unpack(">I", each[4:8])[0] for each in got if each[0] == 4 and len(each) >= 8}

    await eventually(lambda: ord("x") in keys(), "the key came")
    await page.get_by_role("button", name="Send Ctrl-Alt-Del").click()
    await eventually(lambda: any(b"\xff\xff" in each for each in got), "Delete came")
    await page.locator(".display-box canvas").click()
    await page.keyboard.press("Control+Alt+Enter")
    await expect(page.get_by_role("link", name="Display", exact=True)).to_be_focused()
    await tab(page, "Summary")
    await expect(page.locator("canvas")).to_have_count(0)


async def test_what_a_guest_says_of_itself(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(viewer="viewer@default")
    one = await vm(cloud, "talks")
    page = await cloud.signed_in(chromium, "viewer", f"{VMS}/{one}?tab=guest")
    await expect(page.get_by_text("Simulated guest")).to_be_visible()
    await expect(page.get_by_role("meter", name="/")).to_have_attribute("aria-valuetext", "1 GiB of 4 GiB")
    await cloud.send("POST", f"/v1/projects/default/vms/{one}/stop?wait=30s", {"force": True})
    await expect(page.get_by_role("alert")).to_contain_text("only while the VM is running")
    await cloud.send("POST", f"/v1/projects/default/vms/{one}/start?wait=30s", {})
    await expect(page.get_by_text("Simulated guest")).to_be_visible()


async def test_what_a_guest_has_written(chromium: Browser, cloud: Bed) -> None:
    """A simulated guest writes nothing, which is said. What one has written comes from this test then."""
    one = await vm(cloud, "written")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}?tab=log")
    await expect(page.get_by_role("alert")).to_contain_text("no_console_log")
    asked: list[str] = []
    pieces = [b"boot\x1b[31m red\x1b[0m <script>document.title='owned'</script> \xc3", b"\xbc\r\nlogin: "]

    async def answer(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) > len(pieces):
            return  # it waits for more
        headers = {"Nebula-Cursor": f"1-{len(asked)}", "Nebula-More": "false", "Content-Type": "text/plain"}
        await route.fulfill(body=pieces[len(asked) - 1], headers=headers)

    await page.route(re.compile("/console-log"), answer)
    await page.get_by_role("button", name="Read again").click()
    log = page.get_by_role("region", name="Console log", exact=True).last
    await expect(log).to_have_text(re.compile("boot red <script>document.title='owned'</script> ü\nlogin: "))
    await eventually(lambda: len(asked) == 3, "it follows")
    assert "cursor=1-1" in asked[1]
    assert "cursor=1-2" in asked[2]
    assert await page.title() == "written · Nebula"


@pytest.mark.parametrize("width", [1280, 390])
async def test_everybody_can_use_these_parts(chromium: Browser, cloud: Bed, width: int) -> None:
    one = await vm(cloud, "for-all")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}", viewport={"width": width, "height": 844})
    for name, shows in (
        ("Console", page.get_by_text(CONNECTED)),
        ("Display", page.get_by_text("no_display")),
        ("Usage", page.get_by_role("heading", name="Network")),
        ("Console log", page.get_by_text("no_console_log")),
        ("Guest", page.get_by_text("Simulated guest")),
    ):
        await page.locator(".tabs").get_by_role("link", name=name, exact=True).click()
        await expect(shows).to_be_visible()
        assert await faults(page) == [], name
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
