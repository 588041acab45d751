"""A connection that is lost: the page says so within seconds, and afterwards shows all that happened meanwhile."""

import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from playwright.async_api import Browser, Page, expect

from tests.console.bed import IMAGE, Bed, needs_browser
from tests.waiting import eventually

pytestmark = needs_browser
#: What the browser says by itself of a gateway that is away, and the console of a page that it could not load.
AWAY = ("net::ERR_", "Failed to fetch", "cannot be loaded")
VMS = "/console/projects/default/vms"
#: Milliseconds in which a page has to say that its connection is lost: much more than it needs on a busy machine.
SOON = 10_000


@pytest.fixture(autouse=True)
async def forgiving(cloud: Bed) -> AsyncIterator[None]:
    yield
    cloud.faults[:] = [fault for fault in cloud.faults if not any(words in fault for words in AWAY)]


async def live(page: Page) -> None:
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()


async def renamed(cloud: Bed, tag: str, *names: str) -> None:
    """Rename a tag by the other gateway of the platform."""
    for name in names:
        await cloud.elsewhere("PATCH", f"/v1/tags/{tag}?wait=30s", {"name": name})


async def made(cloud: Bed, name: str) -> str:
    body = {"name": name, "image": IMAGE, "vcpus": 1, "memory_mib": 64, "disk_gib": 1}
    return str((await cloud.elsewhere("POST", "/v1/projects/default/vms?wait=30s", body))["vm"]["id"])


async def positions(page: Page) -> list[int]:
    """The positions of the events that a page shows, the newest first."""
    texts = await page.locator(".timeline li").all_inner_texts()
    return [int(found[1]) for text in texts if (found := re.search(r"position (\d+)", text))]


async def test_a_table_is_what_the_platform_has(chromium: Browser, cloud: Bed) -> None:
    """VMs come, change and go while the gateway is away."""
    stays, goes = await made(cloud, "stays"), await made(cloud, "goes")
    page = await cloud.signed_in(chromium, "admin", VMS)
    await live(page)
    await expect(page.locator(".table .row th")).to_have_text(["stays", "goes"])
    await cloud.stop_gateway()
    await expect(page.get_by_text("Connection lost")).to_be_visible(timeout=SOON)
    await expect(page.get_by_role("button", name="Try now")).to_be_visible()
    await expect(page.locator(".table .row th")).to_have_text(["stays", "goes"])  # it still shows what it knows
    await made(cloud, "comes")
    await cloud.elsewhere("POST", f"/v1/projects/default/vms/{stays}/stop?wait=30s", {"force": True})
    await cloud.elsewhere("DELETE", f"/v1/projects/default/vms/{goes}?wait=30s")
    await cloud.start_gateway()
    await live(page)
    await expect(page.get_by_text("Connection lost")).to_have_count(0)
    await expect(page.locator(".table .row th")).to_have_text(["stays", "comes"])
    await expect(page.get_by_role("row", name=re.compile("stays.*Stopped"))).to_be_visible()
    await expect(page.get_by_role("row", name=re.compile("comes.*Running"))).to_be_visible()
    listed = (await cloud.send("GET", "/v1/projects/default/vms"))["items"]
    assert [vm["name"] for vm in listed] == await page.locator(".table .row th").all_inner_texts()


async def test_no_event_is_missing_in_the_log(chromium: Browser, cloud: Bed) -> None:
    """The gateway stops three times while events come; each of them is shown once, in its order."""
    tag = "lost-and-found"
    await cloud.send("POST", "/v1/tags?wait=30s", {"id": tag, "name": "0"})
    page = await cloud.signed_in(chromium, "admin", f"/console/log?kind=tag&id={tag}")
    await live(page)
    for number in range(3):
        await renamed(cloud, tag, f"{number} before")
        await cloud.stop_gateway()
        await expect(page.get_by_text("Connection lost")).to_be_visible(timeout=SOON)
        await renamed(cloud, tag, f"{number} while it is away", f"{number} still")
        await cloud.start_gateway()
        await live(page)
    wanted = (await cloud.send("GET", f"/v1/events?kind=tag&id={tag}&order=desc&limit=100"))["items"]
    assert len(wanted) == 10
    await expect(page.locator(".timeline li")).to_have_count(10)
    assert await positions(page) == [event["position"] for event in wanted]


async def test_the_overview_goes_on_with_the_next_event(chromium: Browser, cloud: Bed) -> None:
    """Its list is made of events as they come, not read again: the feed goes on at the exact position."""
    await cloud.send("POST", "/v1/tags?wait=30s", {"id": "flow", "name": "0"})
    page = await cloud.signed_in(chromium, "admin", "/console/")
    await live(page)
    await cloud.stop_gateway()
    await expect(page.get_by_text("Connection lost")).to_be_visible(timeout=SOON)
    await renamed(cloud, "flow", *"123456")
    await cloud.start_gateway()
    await live(page)
    wanted = [event["position"] for event in (await cloud.send("GET", "/v1/events?order=desc&limit=20"))["items"]]

    async def same() -> bool:
        return await positions(page) == wanted

    await eventually(same, "the newest events, each once")


async def test_several_tabs_say_it_and_go_on(chromium: Browser, cloud: Bed) -> None:
    """All tabs share one connection, also when one of them is closed meanwhile."""
    await cloud.send("POST", "/v1/tags?wait=30s", {"id": "tabs", "name": "0"})
    first = await cloud.signed_in(chromium, "admin", "/console/log?kind=tag&id=tabs")
    await live(first)
    second = await first.context.new_page()
    await second.goto("/console/log?kind=tag&id=tabs")
    await live(second)
    await cloud.stop_gateway()
    for page in (first, second):
        await expect(page.get_by_text("Connection lost")).to_be_visible(timeout=SOON)
    await first.close()
    await renamed(cloud, "tabs", "1", "2")
    await cloud.start_gateway()
    await live(second)
    await expect(second.locator(".timeline li")).to_have_count(3)


@contextmanager
def paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_the_log_is_away_and_comes_back(chromium: Browser, cloud: Bed) -> None:
    """The page that shows the log says nothing wrong meanwhile, the overview says what is away; then all is there."""
    await cloud.send("POST", "/v1/tags?wait=30s", {"id": "away", "name": "0"})
    page = await cloud.signed_in(chromium, "admin", "/console/log?kind=tag&id=away")
    await live(page)
    second = await page.context.new_page()
    await second.goto("/console/")
    await live(second)
    servers = cloud.cloud.servers
    assert servers is not None
    with paused(servers.nats.pid):
        await expect(second.get_by_text("Commands are not decided")).to_be_visible()
    await expect(second.get_by_text("Commands are not decided")).to_have_count(0)
    await renamed(cloud, "away", "1", "2")
    await expect(page.locator(".timeline li")).to_have_count(3)
    wanted = (await cloud.send("GET", "/v1/events?kind=tag&id=away&order=desc"))["items"]
    assert await positions(page) == [event["position"] for event in wanted]


@pytest.mark.parametrize("address", ["/console/", VMS, "/console/log"])
async def test_a_page_that_opens_without_a_gateway_comes_by_itself(chromium: Browser, cloud: Bed, address: str) -> None:
    """The gateway is gone when a page is gone to; it is read again when it is back."""
    page = await cloud.signed_in(chromium, "admin", "/console/nodes")
    await live(page)
    await cloud.stop_gateway()
    await expect(page.get_by_text("Connection lost")).to_be_visible(timeout=SOON)
    name = {"/console/": "Overview", VMS: "Virtual machines", "/console/log": "Log"}[address]
    await page.get_by_role("combobox", name="Project").select_option("default")
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name=name, exact=True).click()
    await cloud.start_gateway()
    await live(page)
    await expect(page.get_by_role("alert")).to_have_count(0)
    await expect(page.get_by_role("heading", name=name, exact=True, level=1)).to_be_visible()
