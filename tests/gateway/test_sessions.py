"""Sessions of browsers: a cookie that no script reads, no other site sends, and that ends with its token."""

import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.access.sessions import SECONDS, Sessions, TooLong
from gateway.http.problems import Problem
from gateway.state import Gateway
from tests.gateway.platform import Platform, served
from tests.waiting import eventually

TOKEN = "secret-a"
KEY = bytes(range(32))


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def cookie_of(header: str) -> str:
    return header.split(";", maxsplit=1)[0]


def test_a_cookie_is_bound_to_its_host_and_hidden_from_scripts() -> None:
    _, plain = Sessions(KEY).begin(TOKEN)
    assert plain.startswith("nebula-session=")
    assert {"Path=/", "HttpOnly", "SameSite=Strict", f"Max-Age={SECONDS}"} <= set(plain.split("; "))
    _, secure = Sessions(KEY, tls=True).begin(TOKEN)
    assert secure.startswith("__Host-nebula-session=")
    assert "Secure" in secure.split("; ")
    assert TOKEN not in plain
    assert base64.b64encode(TOKEN.encode()).decode().rstrip("=") not in plain


def test_only_a_cookie_of_this_key_that_has_not_ended_is_a_session() -> None:
    clock = Clock()
    sessions = Sessions(KEY, now=clock)
    session, header = sessions.begin(TOKEN)
    cookie = cookie_of(header)
    assert sessions.offered(f"other=1; {cookie}") == session
    assert Sessions(KEY, now=clock).offered(cookie) == session, "another gateway knows it as well"
    assert Sessions(KEY[::-1], now=clock).offered(cookie) is None
    for wrong in (
        None,
        "",
        "nebula-session=",
        "nebula-session=AAAA",
        cookie[:-4],
        cookie[:40] + ("A" if cookie[40] != "A" else "B") + cookie[41:],
        "\x00=;;=",
        cookie + "é",
    ):
        assert sessions.offered(wrong) is None, wrong
    clock.now += SECONDS
    assert sessions.offered(cookie) is None


def test_two_cookies_are_no_session() -> None:
    """Another site below the same domain, or on another port of the same host, has put its own beside ours."""
    sessions = Sessions(KEY)
    ours, theirs = (cookie_of(sessions.begin(token)[1]) for token in (TOKEN, "theirs"))
    for both in (f"{ours}; {theirs}", f"{theirs}; {ours}", f"{ours};{ours}", f"{ours}; nebula-session="):
        assert sessions.offered(both) is None
    session = sessions.offered(f'quoted="; {ours}; other="; x-nebula-session=1; nebula-session2=2')
    assert session is not None and session.token == TOKEN, "no other cookie hides it"


def test_a_session_ends_no_later_than_its_token() -> None:
    clock = Clock()
    session, header = Sessions(KEY, now=clock).begin(TOKEN, ends=clock.now + 60)
    assert session.ends == clock.now + 60
    assert "Max-Age=60" in header


def test_an_ended_session_is_remembered() -> None:
    sessions = Sessions(KEY)
    session, header = sessions.begin(TOKEN)
    assert "Max-Age=0" in sessions.end(session)
    assert sessions.offered(cookie_of(header)) is None
    other, header = sessions.begin(TOKEN)
    assert sessions.offered(cookie_of(header)) == other


def test_what_changes_something_needs_the_proof_of_this_session() -> None:
    sessions = Sessions(KEY)
    one, two = sessions.begin(TOKEN)[0], sessions.begin(TOKEN)[0]
    for method in ("POST", "PATCH", "DELETE", "PUT", "OPTIONS"):
        sessions.judge(one, method, sessions.csrf(one), None)
        for wrong in (None, "", sessions.csrf(two), "é"):
            with pytest.raises(Problem, match="csrf_token_missing"):
                sessions.judge(one, method, wrong, "http://127.0.0.1")
    sessions.judge(one, "GET", None, None)
    sessions.judge(one, "", None, "http://127.0.0.1")
    with pytest.raises(Problem, match="csrf_token_missing"):
        sessions.judge(one, "", None, None)


def test_a_token_that_does_not_fit_is_refused() -> None:
    with pytest.raises(TooLong, match="4000 bytes"):
        Sessions(KEY).begin("x" * 4000)


@pytest.fixture
async def browser(api: Platform, tmp_path: Path) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient, Path]]:
    file = tmp_path / "tokens"
    file.write_text(f"alice {hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    async with (
        served(api.side, api.dsn, tokens_file=file, home=tmp_path) as (gateway, url),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        yield gateway, http, file


async def test_a_browser_works_with_a_cookie_and_a_proof(browser: tuple[Gateway, httpx.AsyncClient, Path]) -> None:
    _, http, _ = browser
    assert (await http.get("/v1/projects")).status_code == 401
    begun = await http.post("/v1/session", headers={"Authorization": f"Bearer {TOKEN}"})
    assert begun.status_code == 200
    assert begun.headers["cache-control"] == "no-store"
    assert begun.json()["principal"] == "alice"
    assert TOKEN not in begun.text
    assert (await http.get("/v1/projects")).status_code == 200
    proof = {"X-CSRF-Token": (await http.get("/v1/session")).json()["csrf"]}
    assert proof["X-CSRF-Token"] == begun.json()["csrf"]
    tag = {"id": "of-a-browser", "name": "t"}
    refused = await http.post("/v1/tags", json=tag)
    assert (refused.status_code, refused.json()["code"]) == (403, "csrf_token_missing")
    refused = await http.post("/v1/tags", json=tag, headers={**proof, "Origin": "https://evil.example"})
    assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
    made = await http.post("/v1/tags", json=tag, headers=proof)
    assert (made.status_code, made.json()["operation"]["actor"]) == (202, "alice")

    for path in ("/v1/projects", "/v1/projects/none", "/v1/me", "/v1/session"):
        assert (await http.get(path)).headers["cache-control"] == "no-store", "it is not kept after the session"
    cookie = http.cookies["nebula-session"]
    ended = await http.delete("/v1/session", headers=proof)
    assert ended.status_code == 200
    assert "nebula-session" not in http.cookies
    again = await http.get("/v1/projects", headers={"Cookie": f"nebula-session={cookie}"})
    assert again.status_code == 401, "a cookie that somebody kept is of no use"


async def test_a_session_ends_with_its_token(browser: tuple[Gateway, httpx.AsyncClient, Path]) -> None:
    _, http, file = browser
    await http.post("/v1/session", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (await http.get("/v1/session")).status_code == 200
    file.write_text(f"bob {hashlib.sha256(b'other').hexdigest()}\n")

    async def ended() -> bool:
        return (await http.get("/v1/session")).status_code == 401

    await eventually(ended, "the session has ended")


async def test_a_session_needs_a_token_to_begin_and_a_cookie_to_be_seen(
    browser: tuple[Gateway, httpx.AsyncClient, Path],
) -> None:
    _, http, _ = browser
    mine = {"Authorization": f"Bearer {TOKEN}"}
    answer = await http.get("/v1/session", headers=mine)
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")
    answer = await http.delete("/v1/session", headers=mine)
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")
    begun = await http.post("/v1/session", headers=mine)
    answer = await http.post("/v1/session", headers={"X-CSRF-Token": begun.json()["csrf"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "token_needed")
