"""The session of a browser: its cookie, where its token is not, what is left after it, and where signing in leads."""

import asyncio
import re

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.console.bed import Bed, needs_browser
from tests.console.crawl import read
from tests.console.test_guests import VMS, vm
from tests.waiting import eventually

pytestmark = needs_browser
NAME = "nebula-session"


async def cookies(context: BrowserContext) -> list[dict[str, object]]:
    return [dict(each) for each in await context.cookies() if each.get("name") == NAME]


async def cookie_of(cloud: Bed, token: str) -> str:
    """The cookie that somebody gets for a token."""
    answer = await cloud.http.post("/v1/session", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    cloud.http.cookies.clear()
    return answer.headers["set-cookie"].split(";")[0].partition("=")[2]


async def enter(page: Page, token: str) -> None:
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Sign in", exact=True).click()


async def test_the_cookie_is_for_this_gateway_only_and_not_for_scripts(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.signed_in(chromium, "admin", VMS)
    (cookie,) = await cookies(page.context)
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert cookie["domain"] == "127.0.0.1", "of this host, and of none below it"
    assert "admin-token" not in str(cookie["value"])
    assert await page.evaluate("document.cookie") == ""
    first = cookie["value"]
    await page.get_by_role("button", name="Account").click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await enter(page, "admin-token")
    await page.get_by_role("banner").wait_for()
    (cookie,) = await cookies(page.context)
    assert cookie["value"] != first
    kept = await cloud.http.get("/v1/me", headers={"Authorization": "", "Cookie": f"{NAME}={first}"})
    assert kept.status_code == 401, "a session that was ended is worth nothing"


ME = "fetch('/v1/me').then(async answer => [answer.status, (await answer.json()).principal ?? null])"


async def plant(cloud: Bed, page: Page, path: str) -> str:
    """Cookies do not tell ports of a host apart: another site on it puts the cookie of a session of its own there."""
    planted = await cookie_of(cloud, "other-token")
    await page.context.add_cookies([{"name": NAME, "value": planted, "domain": "127.0.0.1", "path": path}])
    return planted


async def test_a_session_that_somebody_else_began_is_not_gone_on_with(chromium: Browser, cloud: Bed) -> None:
    await cloud.allow(other="viewer@default")
    page = await cloud.page(chromium)
    planted = await plant(cloud, page, "/")
    await page.goto("/console/tokens")
    await expect(page.get_by_role("button", name="Account other")).to_be_visible()  # as everybody can see
    await page.get_by_role("button", name="Account").click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await enter(page, "admin-token")
    await expect(page.get_by_role("button", name="Account admin")).to_be_visible()
    (mine,) = await cookies(page.context)
    assert mine["value"] != planted
    planted = await plant(cloud, page, "/v1/")
    assert len(await cookies(page.context)) == 2
    assert await page.evaluate(ME) == [401, None], "nothing says which one is right, so neither is"
    await page.reload()
    await expect(page.get_by_label("Token")).to_be_visible()
    await page.context.clear_cookies(path="/v1/")
    await page.reload()
    await expect(page.get_by_role("button", name="Account admin")).to_be_visible()


async def test_the_token_is_in_no_address_store_log_or_text(chromium: Browser, cloud: Bed) -> None:
    wrong, right = "wrong-4f1c9a77", "admin-token"
    page = await cloud.page(chromium)
    addresses: list[str] = []
    said: list[str] = []
    carried: list[str] = []

    def asked(request: object) -> None:
        addresses.append(request.url)  # type: ignore[attr-defined]
        if right in str(request.headers) + (request.post_data or ""):  # type: ignore[attr-defined]
            carried.append(f"{request.method} {request.url}")  # type: ignore[attr-defined]

    page.context.on("request", asked)
    page.on("console", lambda message: said.append(message.text))
    await page.goto(f"{VMS}?q=x")
    await enter(page, wrong)
    await expect(page.get_by_role("alert")).to_be_visible()
    assert wrong not in await page.locator("body").inner_text()
    await enter(page, right)
    await page.get_by_role("banner").wait_for()
    await read(page)
    assert carried == [f"POST {cloud.url}/v1/session"], "it is sent once"
    kept = await page.evaluate(
        """async () => JSON.stringify([
            {...localStorage}, {...sessionStorage}, document.cookie, history.state, location.href, document.referrer,
            await caches.keys(), await indexedDB.databases(), performance.getEntries().map(each => each.name),
            document.documentElement.outerHTML, [...document.querySelectorAll('input')].map(each => each.value),
        ])"""
    )
    log = (cloud.cloud.home / "roles.log").read_text(errors="replace")
    refusals = (await cloud.http.get("/v1/refusals")).text
    for secret in (right, wrong):
        for place, text in (
            *(("an address", " ".join(addresses)), ("the console of the browser", " ".join(said))),
            *(("what the page keeps", kept), ("the log", log), ("refusals", refusals)),
        ):
            assert secret not in text, place
    # Without its script the form would be sent as an address: the policy forbids that.
    await page.get_by_role("button", name="Account").click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await page.get_by_label("Token").fill(right)
    await page.evaluate("document.querySelector('form').submit()")
    await eventually(lambda: any("form-action" in each for each in said), "the policy has refused it")
    assert not any(right in each for each in addresses)
    cloud.faults.clear()  # the browser says that it has refused the form


async def test_the_button_back_shows_nothing_after_signing_out(chromium: Browser, cloud: Bed) -> None:
    one = await vm(cloud, "seen-before")
    page = await cloud.signed_in(chromium, "admin", f"{VMS}/{one}")
    await expect(page.get_by_role("heading", name="seen-before")).to_be_visible()
    answer = f"{cloud.url}/v1/projects/default/vms/{one}"
    await page.goto(answer)
    await expect(page.locator("body")).to_contain_text("seen-before")
    await page.goto("/console/log")
    await read(page)
    await page.get_by_role("navigation", name="Pages").get_by_role("link", name="Virtual machines").click()
    await expect(page.get_by_role("link", name="seen-before")).to_be_visible()
    await page.get_by_role("button", name="Account").click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await expect(page.get_by_label("Token")).to_be_visible()
    await expect(page.locator("body")).not_to_contain_text("seen-before")
    for _ in range(3):
        await page.go_back()
        await expect(page.locator("body")).to_contain_text(re.compile("Token|unauthorized"))
        assert "seen-before" not in await page.locator("html").inner_text(), page.url
    assert page.url == f"{cloud.url}{VMS}/{one}"
    for path in ("/v1/me", f"/v1/projects/default/vms/{one}", "/v1/events"):
        headers = {"Cookie": f"{NAME}={await cookie_of(cloud, 'admin-token')}", "Authorization": ""}
        stored = await cloud.http.get(path, headers=headers)
        assert (stored.status_code, stored.headers["cache-control"]) == (200, "no-store")


async def test_an_end_of_the_session_closes_what_is_open(chromium: Browser, cloud: Bed) -> None:
    """Also the dialogue with the secret of a new token, which no key closes; and what another user of it may see."""
    await cloud.send("POST", "/v1/users?wait=30s", {"id": "leaves", "name": "Leaves"})
    await cloud.send("POST", "/v1/projects/default/bind?wait=30s", {"principal": "user:leaves", "role": "viewer"})
    made = await cloud.send("POST", "/v1/tokens?wait=30s", {"name": "own", "principal": "user:leaves"})
    await cloud.allow(second="viewer@bench")
    page = await cloud.page(chromium)
    await page.goto("/console/tokens")
    await enter(page, made["secret"])
    await page.get_by_role("button", name="Issue a token").first.click()
    await page.get_by_role("dialog").get_by_label("Name").fill("secret-one")
    await page.get_by_role("dialog").get_by_label("Days that it lasts").fill("1")
    await page.get_by_role("dialog").get_by_role("button", name="Issue").click()
    once = page.get_by_role("dialog", name="The token secret-one")
    secret = await once.get_by_label("Secret").input_value()
    await cloud.send("DELETE", f"/v1/tokens/{made['token']['id']}?wait=30s")
    await expect(page.get_by_text(re.compile("not valid any more"))).to_be_visible()
    await expect(page.locator("dialog")).to_have_count(0)
    assert secret not in await page.content()
    await enter(page, "second-token")
    await expect(page.get_by_role("combobox", name="Project").get_by_role("option")).to_have_text(["Bench"])
    await expect(page.locator("body")).not_to_contain_text("secret-one")


#: Addresses that some browser or some program takes for another host's.
LEADS = (
    *(
        "/console//evil.example/x",
        "/console/\\evil.example",
        "/console/%2f%2fevil.example",
        "/console/..//evil.example",
    ),
    *(
        "/console/%09//evil.example",
        "/console/?next=//evil.example",
        "/console/#//evil.example",
        "/console/@evil.example",
    ),
)


@pytest.mark.parametrize("address", LEADS)
async def test_signing_in_with_a_token_leads_to_no_other_site(chromium: Browser, cloud: Bed, address: str) -> None:
    page = await cloud.page(chromium)
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{cloud.url}{address}")
    if await page.locator("pre").count():  # the browser has made another path of it, of which there is nothing
        assert "urn:nebula:problem" in await page.locator("pre").inner_text()
        return
    await enter(page, "admin-token")
    await page.get_by_role("banner").wait_for()
    await expect(page.locator("h1, h2").first).to_be_visible()
    assert page.url.startswith(f"{cloud.url}/console/")
    assert [each for each in asked if not each.startswith(f"{cloud.url}/")] == []


async def test_there_is_no_service_worker(chromium: Browser, cloud: Bed) -> None:
    """It would answer for the gateway, also after the page that made it was mended."""
    page = await cloud.signed_in(chromium, "admin")
    worker = await page.evaluate("document.querySelector('script[src]').src.replace('app.js', 'core/live-worker.js')")
    tried = """async address => {
        try { await navigator.serviceWorker.register(address, {type: 'module'}); } catch { return 'refused'; }
        return 'registered';
    }"""
    for address in (worker, "/console/", "/v1/me", "data:text/javascript,1"):
        assert await page.evaluate(tried, address) == "refused", address
    assert await page.evaluate("navigator.serviceWorker.getRegistrations().then(all => all.length)") == 0
    path = worker.removeprefix(cloud.url)
    assert (await cloud.http.get(path)).status_code == 200
    assert (await cloud.http.get(path, headers={"Service-Worker": "script"})).status_code == 404
    cloud.faults.clear()  # the browser says that it has refused them


async def raw(cloud: Bed, target: bytes) -> bytes:
    """The answer to a request whose target is sent as it is: libraries make it shorter first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(cloud.url.rpartition(":")[2]))
    try:
        writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


async def test_no_other_file_is_served(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.page(chromium)
    await page.goto("/console/")
    base = (await page.evaluate("document.querySelector('script[src]').src")).removeprefix(cloud.url)
    at = base.removesuffix("app.js").encode()
    assert b" 200 " in (await raw(cloud, at + b"app.js")).split(b"\r\n")[0]
    climbs = (
        b"../",
        b"%2e%2e/",
        b"..%2f",
        b"%2e%2e%2f",
        b"..\\",
        b"..%5c",
        b"%252e%252e/",
        b".%2e/",
        b"....//",
        b"..;/",
    )
    wanted = (b"etc/passwd", b"routes.py", b"index.html", b"package.json")
    targets = [at + climb * times + name for climb in climbs for times in (1, 2, 9) for name in wanted]
    targets += [
        at + vendor + b"secret.js" for vendor in (b"vendor/", b"vendor/lit-html/../", b"vendor//", b"vendor/../")
    ]
    targets += [at + b"app.js%00", at + b"app.js%00.css", at + b"%00", at + b"app.js/", at + b"/app.js", at + b"APP.JS"]
    targets += [at + b"//etc/passwd", at + b"file:///etc/passwd", at + b"core/types.d.ts", at, b"/console/files"]
    targets += [
        b"/console/files/../routes.py",
        b"/console/files//etc/passwd",
        b"/console/files/%00",
        at + b"\xff",
        at + b"a" * 3000,
    ]
    for target in targets:
        answer = await raw(cloud, target)
        status = answer.split(b" ")[1]
        assert status in (b"404", b"400"), (target, answer[:200])
        assert not re.search(rb"root:|import |\"name\":", answer), target
