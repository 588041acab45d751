"""What is open ends when its caller is no longer valid: feeds, waits, consoles."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.gateway.echo_guest import Guest, speaks
from tests.gateway.platform import SPEC, VMS, Platform, frames, served
from tests.gateway.test_access import digest
from tests.gateway.test_console import ended, guest
from tests.waiting import eventually

__all__ = ["guest"]
ALICE, BOB = {"Authorization": "Bearer a"}, {"Authorization": "Bearer b"}
FEED = "/v1/feed"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "tokens"
    made.write_text(f"alice {digest('a')}\nbob {digest('b')}\n")
    return made


@pytest.fixture
async def guarded(api: Platform, file: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        served(api.side, api.dsn, tokens_file=file) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        yield http


async def rest_of(http: httpx.AsyncClient, caller: dict[str, str], opened: asyncio.Event) -> str:
    """What a feed sends until it ends."""
    text = ""
    async with http.stream("GET", f"{FEED}?from=now", headers=caller) as answer:
        async for piece in answer.aiter_text():
            opened.set()
            text += piece
    return text


async def test_a_feed_ends_and_those_of_others_go_on(guarded: httpx.AsyncClient, file: Path) -> None:
    opened = asyncio.Event()
    ending = asyncio.create_task(rest_of(guarded, ALICE, opened))
    going_on = asyncio.create_task(frames(guarded, f"{FEED}?from=now", 1, **BOB))
    await opened.wait()
    file.write_text(f"bob {digest('b')}\n")
    assert (await ending).endswith(": ended: unauthorized\n\n")
    assert not going_on.done()
    made = await guarded.post(VMS, json={"name": "web-1", "image": "base", **SPEC}, headers=BOB)
    assert made.status_code == 202
    assert len(await going_on) == 1


@pytest.mark.parametrize("path", ["/v1/events?actor=nobody&wait=50s", "/v1/operations/{}?wait=50s"])
async def test_a_wait_ends(api: Platform, guarded: httpx.AsyncClient, file: Path, path: str) -> None:
    unplaced = {"name": "web-1", "image": "base", **SPEC, "region": "nowhere"}
    made = (await guarded.post(VMS, json=unplaced, headers=ALICE)).json()
    waiting = asyncio.create_task(guarded.get(path.format(made["operation"]["id"]), headers=ALICE))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    file.write_text(f"bob {digest('b')}\n")
    assert (await waiting).status_code == 401


async def test_a_command_that_waits_ends_and_has_happened(guarded: httpx.AsyncClient, file: Path) -> None:
    unplaced = {"name": "awaited", "image": "base", **SPEC, "region": "nowhere"}
    waiting = asyncio.create_task(guarded.post(f"{VMS}?wait=50s", json=unplaced, headers=ALICE))

    async def listed() -> bool:
        page = (await guarded.get(f"{VMS}?name=awaited", headers=BOB)).json()
        return bool(page["items"])

    await eventually(listed, "it was accepted")
    file.write_text(f"bob {digest('b')}\n")
    assert (await waiting).status_code == 401


async def test_a_console_ends_and_the_log_says_why(guest: Guest, file: Path) -> None:
    async with served(guest.api.side, guest.api.dsn, tokens_file=file) as (_, url):
        there = f"ws{url.removeprefix('http')}{VMS}/{guest.vm}/console"
        async with connect(there, additional_headers=ALICE, proxy=None) as socket:
            await speaks(socket)
            file.write_text(f"bob {digest('b')}\n")
            code, _ = await ended(socket)
            assert code == 1008

        async def recorded() -> Any:
            page = await guest.api.get(f"/v1/events?vm={guest.vm}&type=VmConsoleClosed&limit=500")
            return [item for item in page["items"] if "no longer valid" in str(item["data"])]

        await eventually(recorded, "the end is recorded")
