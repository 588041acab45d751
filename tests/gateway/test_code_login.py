"""Signing in at a real OIDC server as a browser does, and renewing: what is accepted, and where each refusal leads."""

import asyncio
import html
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from gateway.access import code_login
from gateway.access.attempts import DONE, SECONDS, Attempts, SignInRefused, is_page
from gateway.access.sessions import Sessions
from gateway.state import Gateway
from tests.gateway.platform import Platform, served
from tests.gateway.test_oidc import settings
from tests.oidc.issuer import CLI, Issuer
from tests.waiting import eventually

PAGE = "/console/projects/default/vms?q=a&at=3"
KEY = bytes(range(32))
Browser = tuple[Gateway, httpx.AsyncClient]


@pytest.fixture
async def browser(api: Platform, issuer: Issuer) -> AsyncIterator[Browser]:
    """A gateway with the issuer, and a browser of a new user of it."""
    async with (
        served(api.side, api.dsn, auth="tokens", **settings(issuer)) as (gateway, url),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        yield gateway, http


def form(page: str) -> tuple[str, dict[str, str]]:
    """The first form of a page of the issuer, with the fields that it has already."""
    action = re.search(r'<form[^>]*action="([^"]+)"', page)
    assert action is not None, page
    found = re.findall(r'<(?:input|button)[^>]*name="([^"]+)"[^>]*value="([^"]*)"', page)
    return html.unescape(action[1]), {name: html.unescape(value) for name, value in found}


async def at_issuer(http: httpx.AsyncClient, url: str, account: str = "alice") -> str:
    """What somebody does at the issuer: log in, and consent. Returns where the issuer sends the browser then."""
    answer = await http.get(url)
    for _ in range(12):
        if answer.is_redirect:
            target = str(answer.url.join(answer.headers["location"]))
            if urlsplit(target).path == DONE:
                return target
            answer = await http.get(target)
            continue
        assert answer.status_code == 200, answer.text
        action, fields = form(answer.text)
        if fields.get("prompt") == "login":
            fields |= {"login": account, "password": "any"}
        answer = await http.post(answer.url.join(action), data=fields)
    raise AssertionError(answer.text)


async def begun(http: httpx.AsyncClient, page: str = PAGE) -> str:
    """Where the browser is sent to by the beginning of a sign-in."""
    answer = await http.get("/v1/login/begin", params={"page": page})
    assert answer.status_code == 302 and answer.headers["cache-control"] == "no-store"
    found: str = answer.headers["location"]
    return found


async def signed_in(http: httpx.AsyncClient, account: str = "alice") -> httpx.Response:
    return await http.get(await at_issuer(http, await begun(http), account))


def landed(answer: httpx.Response, code: str, page: str = "/console/") -> None:
    """A sign-in has failed: the page says why, and there is no session."""
    assert answer.status_code == 302, answer.text
    assert answer.headers["location"] == f"{page}{'&' if '?' in page else '?'}login={code}"
    assert "nebula-session=" not in answer.headers.get("set-cookie", "")


async def test_somebody_signs_in_and_renews(browser: Browser, issuer: Issuer) -> None:
    gateway, http = browser
    there = await begun(http)
    asked = {name: value for name, (value,) in parse_qs(urlsplit(there).query).items()}
    assert there.startswith(issuer.url)
    assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", CLI, "S256")
    assert asked["redirect_uri"] == str(http.base_url.join(DONE))
    back = await at_issuer(http, there)
    answer = await http.get(back)
    assert (answer.status_code, answer.headers["location"]) == (302, PAGE)
    cookies = answer.headers.get_list("set-cookie")
    assert any(each.startswith("nebula-login=; ") and "Max-Age=0" in each for each in cookies), cookies
    assert any(each.startswith("nebula-session=") and "SameSite=Strict" in each for each in cookies), cookies
    session = (await http.get("/v1/session")).json()
    assert session["principal"] == "oidc:alice" and session["renewable"] is True
    assert 500 < session["expires_in"] <= 630
    proof = {"X-CSRF-Token": session["csrf"]}
    assert (await http.post("/v1/session/renew")).json()["code"] == "csrf_token_missing"

    before = http.cookies["nebula-session"]
    old = gateway.sessions.offered(f"nebula-session={before}")
    sent = {**proof, "Cookie": f"nebula-session={before}"}
    answers = await asyncio.gather(*(http.post("/v1/session/renew", headers=sent) for _ in range(5)))
    assert [each.status_code for each in answers] == [200] * 5, answers[0].text
    new = gateway.sessions.offered(f"nebula-session={http.cookies['nebula-session']}")
    assert old is not None and new is not None
    assert (new.id, new.last) == (old.id, old.last), "it is the same session, and does not last longer than one"
    assert new.token != old.token and new.refresh != old.refresh
    assert (await http.get("/v1/session")).json()["csrf"] == session["csrf"], "the proofs of other tabs still hold"
    assert (await http.post("/v1/session/renew", headers=proof)).status_code == 200, "and again"

    kept = gateway.sessions.offered(f"nebula-session={http.cookies['nebula-session']}")
    assert kept is not None and kept.refresh is not None and gateway.issuer is not None
    assert (await http.delete("/v1/session", headers=proof)).status_code == 200
    assert (await http.get("/v1/me")).status_code == 401

    async def revoked() -> bool:
        fields = {"grant_type": "refresh_token", "refresh_token": kept.refresh, "client_id": CLI}
        return (await http.post(f"{issuer.url}/token", data=fields)).status_code == 400

    await eventually(revoked, "the issuer knows that the session has ended")
    landed(await http.get(back), "lost")


async def test_a_sign_in_ends_once_and_in_its_browser(browser: Browser) -> None:
    _, http = browser
    back = await at_issuer(http, await begun(http))
    kept = {"Cookie": f"nebula-login={http.cookies['nebula-login']}"}
    async with httpx.AsyncClient(base_url=http.base_url) as other:
        landed(await other.get(back), "lost")  # somebody was led to a link with a foreign code
        await begun(other)
        landed(await other.get(back), "lost")
    assert (await http.get(back)).headers["location"] == PAGE
    async with httpx.AsyncClient(base_url=http.base_url) as other:
        landed(await other.get(back, headers=kept), "lost")


async def test_what_an_issuer_refuses(browser: Browser) -> None:
    _, http = browser
    for query, code in (
        ({"error": "access_denied", "error_description": "<script>"}, "denied"),
        ({"error": "server_error"}, "refused"),
        ({}, "refused"),
        ({"code": "made-up"}, "refused"),
        ({"code": "x" * 7000}, "refused"),
        ({"code": "made-up", "iss": "https://evil.test"}, "refused"),
    ):
        state = parse_qs(urlsplit(await begun(http)).query)["state"][0]
        answer = await http.get(DONE, params={**query, "state": state})
        landed(answer, code, PAGE)
        assert "nebula-login=; " in answer.headers["set-cookie"]
    state = parse_qs(urlsplit(await begun(http)).query)["state"][0]
    twice = f"state={state}&state={state}&code=a"
    for wrong in (f"state={state}x&code=a", "code=a", "state=&code=a", twice, ""):
        landed(await http.get(f"{DONE}?{wrong}"), "lost")


async def test_a_token_of_another_sign_in(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer's answer is replaced: by one without an ID token, and by one for another nonce."""
    gateway, http = browser
    asked = code_login.CodeLogin._asked

    async def without(self: code_login.CodeLogin, fields: dict[str, str]) -> dict[str, object]:
        return {**await asked(self, fields), "id_token": None}

    monkeypatch.setattr(code_login.CodeLogin, "_asked", without)
    landed(await signed_in(http), "token", PAGE)
    monkeypatch.setattr(code_login.CodeLogin, "_asked", asked)
    end = gateway.attempts.end
    monkeypatch.setattr(gateway.attempts, "end", lambda *given: replace(end(*given), nonce="another"))
    landed(await signed_in(http), "token", PAGE)
    monkeypatch.setattr(gateway.attempts, "end", lambda *given: replace(end(*given), verifier="another" * 9))
    landed(await signed_in(http), "refused", PAGE)


async def test_an_issuer_that_is_away(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, http = browser
    await signed_in(http)
    session = (await http.get("/v1/session")).json()
    back = await at_issuer(http, await begun(http))
    codes = gateway.issuer.codes if gateway.issuer is not None else None
    assert codes is not None
    monkeypatch.setattr(codes, "_fetched", time.monotonic())
    monkeypatch.setattr(codes, "_about", {**codes._about, "token_endpoint": "http://127.0.0.1:9/token"})
    landed(await http.get(back), "away", PAGE)  # (another host without TLS is not even asked)
    answer = await http.post("/v1/session/renew", headers={"X-CSRF-Token": session["csrf"]})
    assert (answer.status_code, answer.json()["code"]) == (503, "issuer_away")
    monkeypatch.setattr(codes, "_about", {})
    landed(await http.get("/v1/login/begin", params={"page": PAGE}), "away", PAGE)
    assert (await http.get("/v1/session")).status_code == 200, "the session is as it was"


async def test_a_refused_renewal_ends_nothing(browser: Browser, issuer: Issuer) -> None:
    gateway, http = browser
    await signed_in(http)
    session = gateway.sessions.offered(f"nebula-session={http.cookies['nebula-session']}")
    assert session is not None and session.refresh is not None
    fields = {"token": session.refresh, "client_id": CLI}
    assert (await http.post(f"{issuer.url}/token/revocation", data=fields)).status_code == 200
    proof = {"X-CSRF-Token": gateway.sessions.csrf(session)}
    for _ in range(2):
        answer = await http.post("/v1/session/renew", headers=proof)
        assert (answer.status_code, answer.json()["code"]) == (409, "renewal_refused")
    assert (await http.get("/v1/session")).status_code == 200
    await http.post("/v1/session", headers={"Authorization": f"Bearer {await issuer.token('ci')}"})
    session_view = (await http.get("/v1/session")).json()
    assert session_view["renewable"] is False, "a session of a token that was pasted"
    answer = await http.post("/v1/session/renew", headers={"X-CSRF-Token": session_view["csrf"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "session_not_renewable")


FOREIGN = (
    *("//evil.test", "/\\evil.test", "https://evil.test", "https:evil.test", "/console/\\evil.test", "/consolex"),
    *("/console//evil.test", "/console/../..//evil.test", "/console/%2e%2E/x", "/console/\t/evil.test", ""),
    *("/console/\n", "\t//evil.test", "javascript:alert(1)", "/v1/session", "/console/files/x/app.js", "/console"),
    *("/console/é", "/console/x#y", "/console/" + "x" * 2000, "%2F%2Fevil.test", "/console/ x", "/console/\x00"),
)


@pytest.mark.parametrize("page", FOREIGN)
async def test_a_sign_in_leads_to_a_page_of_the_console_only(browser: Browser, page: str) -> None:
    assert not is_page(page)
    _, http = browser
    answer = await http.get("/v1/login/begin", params={"page": page})
    landed(answer, "page")
    twice = urlencode([("page", PAGE), ("page", page)])
    landed(await http.get(f"/v1/login/begin?{twice}"), "page")


@pytest.mark.parametrize("page", ["/console/", PAGE, "/console/vms?q=http://a//b", "/console/a%20b?c=%22"])
def test_pages_of_the_console(page: str) -> None:
    assert is_page(page)


async def test_without_a_client_nobody_signs_in(api: Platform, issuer: Issuer, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    for more in ({"tokens_file": tmp_path / "tokens"}, {**settings(issuer, oidc_client_id=None), "auth": "tokens"}):
        async with (
            served(api.side, api.dsn, **more) as (_, url),
            httpx.AsyncClient(base_url=url, timeout=30) as http,
        ):
            landed(await http.get("/v1/login/begin"), "none")
            landed(await http.get(DONE, params={"code": "a", "state": "b"}), "lost")


def test_the_cookie_of_a_sign_in() -> None:
    now = [1000.0]
    attempts = Attempts(KEY, tls=True, now=lambda: now[0])
    attempt, header = attempts.begin(PAGE, "cloud.test")
    assert attempt.redirect == "https://cloud.test/v1/login/done"
    cookie, *rest = header.split("; ")
    assert cookie.startswith("__Host-nebula-login=")
    assert set(rest) == {"Path=/", f"Max-Age={SECONDS}", "HttpOnly", "SameSite=Lax", "Secure"}
    assert attempt.state not in header and attempt.verifier not in header
    assert Attempts(KEY, tls=True, now=lambda: now[0]).end(cookie, attempt.state) == attempt, "at another gateway"
    for wrong in (None, "", cookie[:-9], "__Host-nebula-login=", f"__Host-nebula-login={cookie}", "a=\x01"):
        with pytest.raises(SignInRefused, match="lost"):
            attempts.end(wrong, attempt.state)
    session = Sessions(KEY, tls=True).begin("t")[1].split(";")[0].replace("session=", "login=")
    with pytest.raises(SignInRefused, match="lost"):
        attempts.end(session, attempt.state)  # a cookie of a session is no cookie of a sign-in
    now[0] += SECONDS
    with pytest.raises(SignInRefused, match="late"):
        attempts.end(cookie, attempt.state)


def test_a_refresh_token_is_kept_if_there_is_room() -> None:
    sessions = Sessions(KEY, now=lambda: 1000.0)
    session, header = sessions.begin("t" * 900, ends=1600.0, refresh="r" * 900)
    assert session.renewable and sessions.offered(header.split(";")[0]) == session
    session, header = sessions.begin("t" * 900, ends=1600.0, refresh="r" * 3000)
    assert session.refresh is None and not session.renewable and len(header) < 4096
    longer, _ = sessions.renew(sessions.begin("t", ends=1600.0, refresh="r")[0], "u", 99_999_999.0, "s")
    assert longer.ends == longer.last and not longer.renewable, "not longer than a session may last"
