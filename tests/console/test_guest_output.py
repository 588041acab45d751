"""What a hostile guest writes to its console: however much, and whatever it is, the page stays what it was.

A simulated guest writes little: here the test itself is at the other end of the WebSocket.
"""

import re
import time

from playwright.async_api import Browser, Page, Route, WebSocketRoute, expect

from tests.console.bed import Bed, needs_browser
from tests.console.test_guests import CONNECTED, VMS, vm
from tests.waiting import eventually

pytestmark = needs_browser
MIB = 1024 * 1024
#: Addresses that are linked, text for the clipboard, a title, markup, and bytes that are no text.
HOSTILE = (
    b"\x1b]8;;https://evil.example/\x07press here\x1b]8;;\x07 \x1b]52;c;b3duZWQ=\x07\x1b]52;c;?\x07\x1b]0;owned\x07"
    b"\x1b]8;;javascript:document.title='owned'\x07or here\x1b]8;;\x07 <script>document.title='owned'</script>"
    b"<img src=x onerror=\"document.title='owned'\"> \xff\xfe\x00\xc2\x9b31m\xe2\x80\xae end\r\n"
)


class Console:
    """The other end of a console. `sockets`: all connections; `got`: what was typed."""

    def __init__(self) -> None:
        self.sockets: list[WebSocketRoute] = []
        self.got = b""

    def connected(self, socket: WebSocketRoute) -> None:
        self.sockets.append(socket)
        socket.on_message(self._typed)

    def _typed(self, message: str | bytes) -> None:
        self.got += message if isinstance(message, bytes) else message.encode()

    async def socket(self, number: int = 0) -> WebSocketRoute:
        await eventually(lambda: len(self.sockets) > number, "the page has connected", 60)
        return self.sockets[number]


async def attached(chromium: Browser, cloud: Bed, name: str, **options: object) -> tuple[Page, Console]:
    one = await vm(cloud, name)
    page, console = await cloud.signed_in(chromium, "admin", "/", **options), Console()
    await page.route_web_socket(re.compile("/console"), console.connected)
    await page.goto(f"{VMS}/{one}?tab=console")
    await console.socket()
    await expect(page.get_by_text(CONNECTED)).to_be_visible()
    return page, console


async def test_a_guest_reaches_neither_clipboard_nor_page(chromium: Browser, cloud: Bed) -> None:
    page, console = await attached(chromium, cloud, "evil", permissions=["clipboard-read", "clipboard-write"])
    await page.evaluate("navigator.clipboard.writeText('mine')")
    socket = await console.socket()
    socket.send(HOSTILE)
    rows = page.locator(".xterm-rows")
    await expect(rows).to_contain_text("press here or here <script>document.title='owned'</script><img src=x")
    await expect(rows).to_contain_text("end")
    assert await page.title() == "evil · Nebula"
    assert await page.evaluate("navigator.clipboard.readText()") == "mine"
    assert b"owned" not in console.got and b"mine" not in console.got
    assert await page.locator(".terminal-box :is(img, script, a)").count() == 0
    box = await page.locator(".xterm-screen").bounding_box()
    assert box is not None
    await page.mouse.click(box["x"] + 20, box["y"] + 8)
    await page.mouse.dblclick(box["x"] + 20, box["y"] + 8)
    assert len(page.context.pages) == 1 and "evil.example" not in page.url


async def test_ten_mebibytes_are_shown_and_the_page_answers(chromium: Browser, cloud: Bed) -> None:
    page, console = await attached(chromium, cloud, "loud")
    socket = await console.socket()
    line = b"x" * 78 + b"\r\n"
    socket.send(line * (10 * MIB // len(line)) + b"the last line")
    await page.get_by_role("button", name="More actions").click()
    await expect(page.get_by_role("menuitem", name="Edit")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator(".xterm-rows")).to_contain_text("the last line")
    await page.locator(".xterm-helper-textarea").focus()
    await page.keyboard.type("still here")
    await eventually(lambda: b"still here" in console.got, "what is typed goes to the guest")


async def test_what_comes_too_fast_is_left_out_and_said(chromium: Browser, cloud: Bed) -> None:
    """xterm itself throws away what is more than 50 MB, with an error for each message."""
    page, console = await attached(chromium, cloud, "flood")
    socket = await console.socket()
    piece = (b"y" * 78 + b"\r\n") * (4 * MIB // 80)
    for _ in range(24):
        socket.send(piece + b"\x1b]0;cut off")
    await expect(page.locator(".xterm-rows")).to_contain_text(re.compile(r"\[\d+ bytes are left out here: they came"))
    socket.send(b"back again")
    await expect(page.locator(".xterm-rows")).to_contain_text("back again")


async def test_a_gateway_that_is_restarted_is_found_again_each_time(chromium: Browser, cloud: Bed) -> None:
    page, console = await attached(chromium, cloud, "patient")
    for number in range(2):
        await (await console.socket(number)).close(code=1012, reason="this gateway is being stopped")
        await expect(page.get_by_text("This gateway is being restarted. Connecting again…")).to_be_visible()
    socket = await console.socket(2)
    await expect(page.get_by_text(CONNECTED)).to_be_visible()
    socket.send(b"here I am")
    await expect(page.locator(".xterm-rows")).to_contain_text("here I am")
    urls = [each.url for each in console.sockets]
    assert not any("force" in url for url in urls), "nobody is thrown out by a page that comes back"
    await socket.close(code=1008, reason="the token was revoked")
    await expect(page.get_by_text("The connection has ended: the token was revoked.")).to_be_visible()
    await expect(page.get_by_role("button", name="Connect again")).to_be_visible()


async def test_a_console_is_taken_over_only_when_asked(chromium: Browser, cloud: Bed) -> None:
    page, console = await attached(chromium, cloud, "shared")
    socket = await console.socket()
    socket.send('{"code": "console_in_use", "detail": "user:bob has this console", "status": 409}')
    await socket.close(code=4409, reason="console_in_use")
    await expect(page.get_by_role("alert")).to_contain_text("user:bob has this console")
    await page.get_by_role("button", name="Take it over").press("Enter")
    await console.socket(1)
    assert "force=true" in console.sockets[1].url
    await expect(page.get_by_text(CONNECTED)).to_be_visible()


async def test_a_long_log_keeps_its_end(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "wordy")
    page = await cloud.signed_in(chromium, "admin", "/")
    asked: list[float] = []
    body = b"<script>document.title='owned'</script>" + HOSTILE + b"z" * MIB + b"\x1b[31mthe end"

    async def answer(route: Route) -> None:
        asked.append(time.monotonic())
        if len(asked) > 10:
            return  # it waits for more
        headers = {"Nebula-Cursor": f"1-{len(asked)}", "Nebula-More": "true", "Content-Type": "text/plain"}
        await route.fulfill(body=body, headers=headers)

    await page.route(re.compile("/console-log"), answer)
    await page.goto(f"{VMS}/{one}?tab=log")
    log = page.get_by_role("region", name="Console log", exact=True).last
    await eventually(lambda: len(asked) > 10, "ten pieces", 60)
    await expect(log).to_contain_text("the end")
    await expect(page.get_by_text("Only the end is shown.")).to_be_visible()
    assert len(await log.inner_text()) <= 200_000
    assert await page.title() == "wordy · Nebula"
