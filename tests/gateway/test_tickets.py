"""Tickets: a feed without an `Authorization` header, as browsers open it."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.access import Access
from gateway.access import tickets
from gateway.access.auth import Authentication
from gateway.access.identity import Identity
from gateway.access.tickets import Tickets
from gateway.http.problems import Problem
from tests.gateway.platform import VMS, Platform, frames, served
from tests.gateway.test_access import look_again

FEED = "/v1/projects/default/feed"


def line(name: str) -> str:
    return f"{name} {hashlib.sha256(name.encode()).hexdigest()}\n"


@pytest.fixture
async def guarded(api: Platform, tmp_path: Path) -> AsyncIterator[tuple[Any, httpx.AsyncClient, Path]]:
    file = tmp_path / "tokens"
    file.write_text(line("alice") + line("bob"))
    async with (
        served(api.side, api.dsn, tokens_file=file) as (gateway, url),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        yield gateway, http, file


async def ticket(http: httpx.AsyncClient, path: str = FEED, who: str = "alice") -> dict[str, Any]:
    answer = await http.post("/v1/tickets", json={"path": path}, headers={"Authorization": f"Bearer {who}"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made: dict[str, Any] = answer.json()
    return made


async def status(http: httpx.AsyncClient, target: str, method: str = "GET") -> int:
    async with http.stream(method, target) as answer:
        return answer.status_code


async def test_a_ticket_opens_its_feed_once(api: Platform, guarded: tuple[Any, httpx.AsyncClient, Path]) -> None:
    _, http, _ = guarded
    made = await ticket(http)
    vm = await api.create()
    target = f"{FEED}?after={made['position']}&ticket={made['ticket']}"
    (first,) = await frames(http, target, 1)
    assert (first["position"], first["prev"]) == (vm["position"], made["position"])
    assert await status(http, target) == 401  # used up
    again = await ticket(http)  # how a reader goes on
    later = await api.create()
    target = f"{FEED}?after={first['position']}&ticket={again['ticket']}"
    found = await frames(http, target, 1)
    assert found[0]["prev"] == first["position"]
    assert later["position"] >= found[0]["position"]


async def test_a_ticket_is_good_for_nothing_else(guarded: tuple[Any, httpx.AsyncClient, Path]) -> None:
    _, http, _ = guarded
    made = (await ticket(http))["ticket"]
    for target in ("/v1/feed", "/v1/projects/other/feed", VMS, "/v1/events", FEED + "/", "/metrics"):
        assert await status(http, f"{target}?ticket={made}") == 401, target
    assert await status(http, f"{FEED}?ticket={made}", "HEAD") == 401
    assert await status(http, f"{FEED}?ticket={made}", "POST") == 401
    for bad in ("", "x", made[:-1], made + "x", "%00"):
        assert await status(http, f"{FEED}?ticket={bad}") == 401, bad
    assert await status(http, f"{FEED}?ticket={made}") == 200  # all of that did not use it up


async def test_a_ticket_needs_a_token_and_the_path_of_a_feed(guarded: tuple[Any, httpx.AsyncClient, Path]) -> None:
    _, http, _ = guarded
    assert (await http.post("/v1/tickets", json={"path": FEED})).status_code == 401
    made = (await ticket(http))["ticket"]
    assert (await http.post(f"/v1/tickets?ticket={made}", json={"path": FEED})).status_code == 401
    for path in ("/v1/projects", "/v1/feed?after=1", "/v1/feed\n", "feed", "", "/v1/projects/a/../feed", None, 1):
        answer = await http.post("/v1/tickets", json={"path": path}, headers={"Authorization": "Bearer alice"})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "path"), path


async def test_a_ticket_expires(guarded: tuple[Any, httpx.AsyncClient, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, http, _ = guarded
    monkeypatch.setattr(tickets, "SECONDS", 0)
    made = (await ticket(http))["ticket"]
    assert await status(http, f"{FEED}?ticket={made}") == 401


async def test_a_ticket_ends_with_its_token(guarded: tuple[Any, httpx.AsyncClient, Path]) -> None:
    gateway, http, file = guarded
    made = (await ticket(http))["ticket"]
    file.write_text(line("bob"))
    look_again(gateway)
    assert await status(http, f"{FEED}?ticket={made}") == 401


async def test_tickets_stand_in_no_log(
    guarded: tuple[Any, httpx.AsyncClient, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    gateway, http, _ = guarded
    made = (await ticket(http))["ticket"]
    await frames(http, f"{FEED}?ticket={made}", 1)
    assert await status(http, f"{FEED}?ticket={made}") == 401
    said = capsys.readouterr()
    assert made not in said.out + said.err
    assert made not in repr(gateway.tickets)


def named(name: str) -> Identity:
    return Identity(Access(name))


def test_tickets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MOST_OF_ONE", 3)
    monkeypatch.setattr(tickets, "MOST", 5)
    kept, nobody = Tickets(), Authentication(None)
    bobs = kept.issue(named("bob"), FEED)
    alices = [kept.issue(named("alice"), FEED) for _ in range(10)]
    assert len(kept._open) == 4  # nobody crowds others out
    with pytest.raises(Problem):
        kept.redeem(alices[0], FEED, nobody)
    assert kept.redeem(alices[-1], FEED, nobody) == named("alice")
    assert kept.redeem(bobs, FEED, nobody) == named("bob")
    for number in range(20):
        kept.issue(named(f"caller-{number}"), FEED)
    assert len(kept._open) == 5


async def test_a_ticket_that_is_none_is_refused_where_no_token_is_needed(api: Platform) -> None:
    for bad in ("", "x"):
        assert await status(api.http, f"/v1/feed?ticket={bad}") == 401, bad
