"""Signing in at an OIDC issuer in a browser, and what the page says about the end of a session."""

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.console.bed import Bed, needs_browser
from tests.gateway.test_oidc import settings
from tests.oidc.issuer import Issuer, started

pytestmark = needs_browser
VMS = "/console/projects/default/vms"


@pytest.fixture(scope="module")
async def issuer() -> AsyncIterator[Issuer]:
    async with started() as made:
        yield made


@pytest.fixture
async def oidc(cloud: Bed, issuer: Issuer) -> AsyncIterator[Bed]:
    """The platform, whose gateway accepts tokens of the issuer."""
    found = settings(issuer)
    names = {f"NEBULA_{name.upper()}": value for name, value in found.items()}
    await cloud.stop_gateway()
    await cloud.start_gateway(**names)
    await cloud.allow()
    yield cloud
    await cloud.close()  # a page that still loads something would report that its gateway is gone
    cloud.faults[:] = [each for each in cloud.faults if "://fonts.googleapis.com" not in each]  # the issuer's own page
    await cloud.stop_gateway()


async def at_issuer(page: Page, account: str = "alice") -> None:
    """What a person does there: log in, and consent."""
    await page.get_by_placeholder("Enter any login").fill(account)
    await page.get_by_placeholder("and password").fill("any")
    await page.get_by_role("button", name="Sign-in").click()
    await page.get_by_role("button", name="Continue").click()


async def test_somebody_signs_in_at_the_issuer(chromium: Browser, oidc: Bed, issuer: Issuer) -> None:
    page = await oidc.page(chromium)
    await page.goto(f"{VMS}?q=web&login=denied")
    await expect(page.get_by_text("it was refused at the issuer")).to_be_visible()
    enter = page.get_by_role("button", name=re.compile("Sign in with"))
    await enter.click()
    await expect(page).to_have_url(re.compile(re.escape(issuer.url)))
    await at_issuer(page)
    await expect(page.get_by_role("heading", name="Virtual machines", level=1)).to_be_visible()
    await expect(page).to_have_url(f"{oidc.url}{VMS}?q=web")
    await expect(page.get_by_role("button", name="Account oidc:alice")).to_be_visible()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    cookies = {each["name"]: each for each in await page.context.cookies(oidc.url) if each["name"].startswith("nebula")}
    assert set(cookies) == {"nebula-session"}
    assert cookies["nebula-session"]["httpOnly"] and cookies["nebula-session"]["sameSite"] == "Strict"
    assert await page.evaluate("document.cookie") == ""
    await page.reload()
    await expect(page.get_by_role("heading", name="Virtual machines", level=1)).to_be_visible()


async def test_somebody_says_no_at_the_issuer(chromium: Browser, oidc: Bed) -> None:
    page = await oidc.page(chromium)
    await page.goto(VMS)
    await page.get_by_role("button", name=re.compile("Sign in with")).click()
    await page.get_by_role("link", name="Cancel").click()
    await expect(page.get_by_text("it was refused at the issuer")).to_be_visible()
    await expect(page.get_by_label("Token")).to_be_visible()
    await page.get_by_label("Token").fill("admin-token")
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page).to_have_url(f"{oidc.url}{VMS}")
    await expect(page.get_by_role("heading", name="Virtual machines", level=1)).to_be_visible()


async def test_a_session_is_renewed_before_it_ends(chromium: Browser, oidc: Bed) -> None:
    """The clock of the page is put forward; another tab does not renew it a second time."""
    page = await oidc.page(chromium)
    await page.clock.install()
    await page.goto(VMS)
    await page.get_by_role("button", name=re.compile("Sign in with")).click()
    await at_issuer(page)
    await expect(page.get_by_role("heading", name="Virtual machines", level=1)).to_be_visible()
    before = (await page.context.cookies(oidc.url))[0]["value"]
    answers: list[int] = []
    page.on(
        "response",
        lambda each: answers.append(each.status) if each.url.endswith("/v1/session/renew") else None,
    )

    async def short(route: Route) -> None:
        """As if the token had 50 s left."""
        answer = await route.fetch()
        found = await answer.json()
        await route.fulfill(response=answer, json={**found, "expires_in": 50} if answer.ok else found)

    await page.route("**/v1/session", short)
    async with page.expect_response("**/v1/session/renew") as renewed:
        await page.clock.fast_forward("09:30")
    assert (await renewed.value).status == 200
    after = {each["name"]: each["value"] for each in await page.context.cookies(oidc.url)}
    assert after["nebula-session"] != before
    await page.clock.run_for(30_000)
    await expect(page.get_by_role("heading", name="Virtual machines", level=1)).to_be_visible()
    await expect(page.get_by_text("Your session ends")).to_have_count(0)
    assert answers == [200]


async def test_a_session_that_cannot_be_renewed_says_so(chromium: Browser, cloud: Bed) -> None:
    page = await cloud.page(chromium)
    await page.clock.install()
    await page.goto(VMS)
    await page.get_by_label("Token").fill("admin-token")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Virtual machines", level=1)).to_be_visible()
    await expect(page.get_by_text("Your session ends")).to_have_count(0)
    await page.clock.fast_forward("07:56:00")
    await expect(page.get_by_text(re.compile("Your session ends in [45] minutes"))).to_be_visible()
    await page.clock.fast_forward("03:20")
    await expect(page.get_by_text("Your session ends in less than a minute")).to_be_visible()
