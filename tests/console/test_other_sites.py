"""Pages of other sites in the browser of somebody who has signed in: on another port of this host, and by another name.

To a browser, another port of a host is another origin of the same site: it does send the cookie there.
"""

import json
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, expect

from tests.console.bed import Bed, needs_browser
from tests.console.other_site import FORM, FRAMES, TRIES, another_site
from tests.console.test_guests import VMS, vm

pytestmark = needs_browser
BODY = json.dumps({"id": "forged", "name": "forged"})


@pytest.fixture(scope="module")
async def port() -> AsyncIterator[int]:
    async with another_site() as made:
        yield made


async def last(cloud: Bed) -> int:
    """The position of the newest event of the operator, who is the one that looks at the other site."""
    found = await cloud.send("GET", "/v1/events?actor=admin&order=desc&limit=1")
    return int(found["items"][0]["position"])


async def visited(chromium: Browser, cloud: Bed, address: str) -> tuple[Page, Page]:
    """A page of somebody who has signed in, and a page of another site in the same browser."""
    page = await cloud.signed_in(chromium, "admin", VMS)
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    other = await page.context.new_page()  # the faults of this one are its own
    await other.goto(address)
    return page, other


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_another_site_changes_and_reads_nothing(chromium: Browser, cloud: Bed, port: int, name: str) -> None:
    one = await vm(cloud, "not-theirs")
    before = await last(cloud)
    page, other = await visited(chromium, cloud, f"http://{name}:{port}/")
    own = await page.evaluate("document.querySelector('script[src]').src")
    given = {"target": cloud.url, "own": own, "vm": f"/v1/projects/default/vms/{one}", "body": BODY}
    found = await other.evaluate(TRIES, given)
    got = {each: what for each, what in found.items() if not what.startswith("refused: ")}
    assert got == {"beacon": "sent"}, "nothing of it is answered so that a page could read it"
    for type_ in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        await other.goto(f"http://{name}:{port}/")
        async with other.expect_navigation():
            await other.evaluate(FORM, {"target": cloud.url, "body": BODY, "type": type_})
        assert "foreign_origin" in await other.locator("body").inner_text(), type_
    assert await last(cloud) == before, "nothing has happened"
    assert (await cloud.http.get("/v1/tags/forged")).status_code == 404
    await page.reload()
    await expect(page.get_by_role("link", name="not-theirs")).to_be_visible()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_another_site_shows_the_console_in_no_frame(chromium: Browser, cloud: Bed, port: int, name: str) -> None:
    _, other = await visited(chromium, cloud, f"http://{name}:{port}/")
    refused: list[str] = []
    other.on("console", lambda message: refused.append(message.text))
    await other.evaluate(FRAMES, cloud.url)
    await other.wait_for_load_state("networkidle")
    for frame in other.frames[1:]:
        assert await frame.locator("#app, pre").count() == 0, frame.url
    assert other.url == f"http://{name}:{port}/", "no frame has led away"
    assert any("frame-ancestors" in text or "X-Frame-Options" in text for text in refused)


async def test_a_window_of_another_site_has_no_hold_of_the_console(chromium: Browser, cloud: Bed, port: int) -> None:
    _, other = await visited(chromium, cloud, f"http://127.0.0.1:{port}/")
    async with other.expect_popup() as popup:
        await other.evaluate("target => { globalThis.other = window.open(`${target}/console/`); }", cloud.url)
    console = await popup.value
    await expect(console.get_by_role("banner")).to_be_visible()
    assert await other.evaluate("globalThis.other === null || globalThis.other.closed")
    assert await console.evaluate("window.opener === null")


async def test_a_name_of_another_site_is_no_name_of_this_gateway(chromium: Browser, cloud: Bed) -> None:
    """Somebody points a name of theirs at this address (DNS rebinding): then their pages are of the same origin."""
    gateway = cloud.url.rpartition(":")[2]
    page, _ = await visited(chromium, cloud, f"{cloud.url}/healthz")
    other = await page.context.new_page()
    for path in ("/", "/console/", "/v1/me", "/v1/openapi.json", "/healthz"):
        await other.goto(f"http://theirs.localhost:{gateway}{path}")
        assert "foreign_host" in await other.locator("body").inner_text(), path


#: What a browser says of a call, and whether it is one of another site's page. A link to a page of ours is none.
SAYS = [
    ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, False),
    ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, False),  # not shown
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, True),
    ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, True),
    ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, True),
    ({"Sec-Fetch-Site": "cross-site"}, True),
    ({"Origin": "null"}, True),
    ({"Origin": "http://127.0.0.1"}, True),
    ({"Origin": "http://evil.example"}, True),
]


@pytest.mark.parametrize("path", ["/v1/projects", "/console/", "/v1/feed", "/v1/login/begin", "/healthz"])
@pytest.mark.parametrize(("says", "foreign"), SAYS, ids=str)
async def test_what_a_browser_says_of_a_call_is_believed(
    cloud: Bed, path: str, says: dict[str, str], foreign: bool
) -> None:
    async with cloud.http.stream("GET", path, headers=says) as answer:
        assert (answer.status_code == 403) is foreign
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
