"""Texts of others, on all pages: in each field that the API accepts, in each answer, and at the console of a guest."""

import json
import re
from collections.abc import AsyncIterator, Mapping

import pytest
from playwright.async_api import Browser, Page, Route, WebSocket, expect

from tests.console.bed import Bed, needs_browser
from tests.console.crawl import PATHS, addresses, dialogs, read, then
from tests.console.hostile import ACTOR, EVIL, PROJECT, TEXT, TITLE, Witness, made, poisoned, removed
from tests.console.test_guests import CONNECTED, VMS, vm
from tests.waiting import eventually

pytestmark = needs_browser
VM = "/projects/:project/vms/:vm"
#: The pages that show no text that people give.
WITHOUT = {"/", "/status", "/nodes", "/nodes/:node", "/refusals", "/operations", "/projects/:project/vms"}


@pytest.fixture
async def hostile(cloud: Bed) -> AsyncIterator[Mapping[str, str]]:
    """A platform with hostile texts in every field. What stays are deleted VMs, and the log."""
    known = await made(cloud)
    yield known
    await removed(cloud, known)


async def watched(chromium: Browser, cloud: Bed, width: int = 1280) -> tuple[Page, Witness]:
    """A page of the operator, and who watches what it does."""
    page = await cloud.page(chromium, viewport={"width": width, "height": 844})
    witness = Witness(cloud.url)
    await witness.watch(page.context)
    await page.goto("/")
    await page.get_by_label("Token").fill("admin-token")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("banner").wait_for()
    return page, witness


async def test_texts_in_all_fields_stay_texts(chromium: Browser, cloud: Bed, hostile: Mapping[str, str]) -> None:
    """On every page, live and in the past, also in its dialogues; and none makes a page wider than a phone."""
    page, witness = await watched(chromium, cloud, 390)
    shown = set()
    for path, address in addresses(hostile).items():
        for moment in (address, then(address, hostile["position"])):
            await page.goto(moment)
            await read(page)
            await witness.look(page, moment)
            text = await page.locator("#main").text_content() or ""  # also what is folded, or hidden on a phone
            if any(each in text for each in (f"<img src=//{EVIL}", ACTOR)):
                shown.add(path)
            if not await page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
                witness.wrong.append(f"{moment} is too wide")
        if "tab=" not in address:
            await page.goto(address)
            await read(page)
            async for title in dialogs(page):
                await witness.look(page, f"{address}: {title}")
    assert witness.wrong == []
    assert set(PATHS) - WITHOUT - shown == set(), "these show no hostile text, so nothing is known of them"


async def test_texts_that_come_while_a_page_is_open_stay_texts(
    chromium: Browser, cloud: Bed, hostile: Mapping[str, str]
) -> None:
    """In the log as it flows, in messages, in the menu of projects, and in the title of the window."""
    page, witness = await watched(chromium, cloud)
    await page.goto("/console/log")
    await read(page)
    await cloud.send("PATCH", f"/v1/projects/{PROJECT}?wait=30s", {"name": f"{TITLE}2", "description": TEXT})
    await expect(page.locator(f"select option[value={PROJECT}]")).to_have_text(f"{TITLE}2")
    await witness.look(page, "the log")
    await page.goto(f"/console/projects/{PROJECT}")
    await expect(page).to_have_title(f"{TITLE}2 · Nebula")
    await cloud.send("PATCH", f"/v1/projects/{PROJECT}?wait=30s", {"name": f"{TITLE}3"})
    await expect(page.get_by_role("heading", name=f"{TITLE}3")).to_be_visible()
    await page.keyboard.press("Control+k")
    await page.get_by_role("combobox", name="Page, project or virtual machine").fill("img")
    await expect(page.get_by_role("dialog").get_by_role("option").filter(has_text=TITLE)).to_be_visible()
    await witness.look(page, "the search")
    await page.keyboard.press("Escape")
    await page.goto(f"/console/projects/{PROJECT}/vms?q=<img src=x onerror=owned()>&phase=<script>owned()</script>")
    await read(page)
    await witness.look(page, "an address with a script")
    await page.goto(f"/console/log?actor={TITLE}&type={TITLE}&from={TITLE}")
    await read(page)
    await witness.look(page, "a search with a script")
    await page.goto(f"/console/projects/{PROJECT}?at={TITLE}")
    await expect(page.locator("h1").first).to_be_visible()
    await witness.look(page, "a moment with a script")
    assert witness.wrong == []


async def test_no_answer_becomes_markup(chromium: Browser, cloud: Bed) -> None:
    """Every text of every answer ends with a hostile one: also what only nodes, guests and hypervisors could write."""
    one = await vm(cloud, "poisoned")
    found = await cloud.send("GET", f"/v1/projects/default/vms/{one}")
    events = (await cloud.send("GET", f"/v1/events?vm={one}"))["items"]
    node = (await cloud.send("GET", "/v1/nodes"))["items"][0]["id"]
    known = {
        **{"project": "default", "vm": one, "image": "blank", "node": node, "position": str(found["position"])},
        **{"operation": events[0]["operationid"], "user": "u", "service_account": "s", "flavor": "f"},
    }
    page, witness = await watched(chromium, cloud)
    changed: set[str] = set()

    async def poison(route: Route) -> None:
        answer = await route.fetch()
        if "json" not in answer.headers.get("content-type", ""):
            await route.fulfill(response=answer, body=f"{await answer.text()} {TEXT}")
            return
        changed.add(re.sub(r"\?.*", "", route.request.url.removeprefix(cloud.url)))
        await route.fulfill(response=answer, body=json.dumps(poisoned(await answer.json())))

    await page.route(re.compile(r"/v1/(?!me$|session|feed|login)"), poison)
    for address in addresses(known).values():
        await page.goto(address)
        await expect(page.locator("h1").first).to_be_visible()
        await expect(page.locator("[aria-busy=true]")).to_have_count(0)
        await witness.look(page, address)
    await page.unroute_all(behavior="ignoreErrors")
    assert witness.wrong == []
    for wanted in (f"/v1/projects/default/vms/{one}/guest", f"/v1/nodes/{node}", "/v1/status", "/v1/diff"):
        assert wanted in changed
    cloud.faults[:] = [each for each in cloud.faults if "status of" not in each]


#: What a terminal could obey: a title and the wish to have it typed, a file for the clipboard, links, another size, the
#: name of the terminal, the state of a mode, other screens, and control strings that never end.
ESCAPES = (
    "\x1b]0;owned\x07\x1b[21t\x1b[20t\x1b]52;c;b3duZWQ=\x07\x1b]52;c;?\x07\x1b]8;;javascript:owned()\x07link\x1b]8;;\x07"
    "\x1b[8;2000;2000t\x1b[3;0;0t\x05\x1b[>q\x1bP$qm\x1b\\\x1b[?1049h\x1b]4;0;?\x07\x1b]10;?\x07\x1b]1337;File=:AAAA\x07"
    "\x1bPq#0;2;0;0;0#0~~\x1b\\\x1b[99999;99999H\x9d0;owned\x9c<img src=x onerror=owned()>end-of-it\x1b]0;never"
)


async def test_a_terminal_obeys_no_escapes(chromium: Browser, cloud: Bed) -> None:
    """A simulated guest answers with what it gets. So what the terminal sends by itself would come back, too."""
    one = await vm(cloud, "escapes")
    page, witness = await watched(chromium, cloud)
    sent: list[bytes] = []

    def opened(socket: WebSocket) -> None:
        socket.on("framesent", lambda data: sent.append(data if isinstance(data, bytes) else data.encode()))

    page.on("websocket", opened)
    await page.goto(f"{VMS}/{one}?tab=console")
    await expect(page.get_by_text(CONNECTED)).to_be_visible()
    rows = page.locator(".xterm-rows")
    before = await page.locator(".xterm-rows > div").count()
    typed = """text => {
        const data = new DataTransfer();
        data.setData('text/plain', text);
        const box = document.querySelector('.xterm-helper-textarea');
        box.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true}));
    }"""
    await page.evaluate(typed, ESCAPES)
    await expect(rows).to_contain_text("end-of-it")
    await eventually(lambda: any(b"end-of-it" in each for each in sent), "it was sent")
    await witness.look(page, "the console")
    assert await page.title() == "escapes · Nebula"
    assert await page.locator(".xterm-rows > div").count() == before, "it has the size that the page gives it"
    assert await page.locator(".xterm a, .xterm img").count() == 0
    answers = [each for each in sent if b"end-of-it" not in each]
    assert not any(b"owned" in each or b"b3duZWQ" in each for each in answers), answers
    assert witness.wrong == []
