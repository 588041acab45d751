"""Tokens of the log on real servers: issued, used, limited, revoked; and what happens when the log is away."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from gateway.access.log_tokens import LogTokens
from gateway.commands import tokens
from gateway.state import Gateway
from runtime.local.servers import Postgres
from runtime.token_text import random, split
from tests.gateway.echo_guest import Guest, speaks
from tests.gateway.platform import SPEC, VMS, Platform, platform, served
from tests.gateway.test_access import digest
from tests.gateway.test_console import ended, guest
from tests.waiting import eventually

__all__ = ["guest"]

ADMIN = {"Authorization": "Bearer admin"}


@dataclass
class Site:
    """A gateway that needs tokens, and a client of it as its operator."""

    api: Platform
    gateway: Gateway
    http: httpx.AsyncClient
    url: str

    async def send(self, method: str, path: str, body: Any = None, key: str | None = None) -> dict[str, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        answer = await self.http.request(method, path, json=body, headers=headers)
        assert answer.status_code in (200, 202), answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def user(self, *roles: str) -> str:
        """A new user with roles in the cloud."""
        id_ = f"u-{uuid.uuid4().hex[:10]}"
        await self.send("POST", "/v1/users", {"name": id_, "id": id_})
        for role in roles:
            await self.send("POST", f"/v1/users/{id_}/bind", {"role": role})
        return id_

    async def token(self, user: str, **more: Any) -> str:
        made = await self.send("POST", "/v1/tokens", {"name": "t", "principal": f"user:{user}", **more})
        secret: str = made["secret"]
        await self.gateway.directory.reach_end()
        return secret

    async def get(self, token: str, path: str = "/v1/me") -> httpx.Response:
        return await self.http.get(path, headers=bearer(token))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def a_site(api: Platform, folder: Path, **settings: Any) -> AsyncIterator[Site]:
    file = folder / "tokens"
    file.write_text(f"admin {digest('admin')}\n")
    async with (
        served(api.side, api.dsn, tokens_file=file, **settings) as (gateway, url),
        httpx.AsyncClient(base_url=url, timeout=60, headers=ADMIN) as http,
    ):
        yield Site(api, gateway, http, url)


@pytest.fixture(scope="module")
async def site(api: Platform, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with a_site(api, tmp_path_factory.mktemp("site")) as made:
        yield made


async def test_a_token_is_issued_and_used(site: Site) -> None:
    user = await site.user("operator")
    answer = await site.http.post("/v1/tokens", json={"name": "laptop", "principal": f"user:{user}"})
    made = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    parts = split(made["secret"])
    assert parts is not None
    assert made["token"]["id"] == parts[0]
    assert (made["token"]["last_used_at"], made["secret_withheld"]) == (None, None)
    assert "digest" not in made["token"]
    await site.gateway.directory.reach_end()
    me = (await site.get(made["secret"])).json()
    assert (me["principal"], me["credential"]) == (f"user:{user}", parts[0])
    assert me["roles"] == [{"role": "operator", "project": None}]
    assert me["expires_at"] == made["token"]["expires_at"]
    event = (await site.http.get(f"/v1/events?operation={made['operation']['id']}")).json()["items"][0]
    assert parts[1] not in str(event)

    async def used() -> bool:
        shown = (await site.http.get(f"/v1/tokens/{parts[0]}")).json()["last_used_at"]
        return shown is not None and shown.endswith(":00.000000Z")

    await eventually(used, "its last use is shown")


async def test_unknown_ids_wrong_secrets_and_broken_tokens_are_answered_alike(site: Site) -> None:
    right = await site.token(await site.user())
    id_, secret = split(right) or ("", "")
    other = await site.token(await site.user())
    others = [
        random(),
        f"nbl_{id_}_{'a' * 43}",
        f"nbl_{(split(other) or ('', ''))[0]}_{secret}",
        right[:-1],
        right + "a",
        right[4:],
        right.upper(),
        f"nbl_{id_}_",
        "nbl_",
    ]
    found = [await site.get(each) for each in others]
    assert {(answer.status_code, answer.json()["detail"]) for answer in found} == {
        (401, "this token is unknown: check it, or ask the operator for a new one")
    }
    assert (await site.get(right)).status_code == 200


async def test_a_repeat_shows_the_secret_for_ten_minutes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    user = await site.user()
    body, key = {"name": "once", "principal": f"user:{user}"}, uuid.uuid4().hex
    first = await site.send("POST", "/v1/tokens", body, key)
    again = await site.send("POST", "/v1/tokens", body, key)
    assert again["secret"] == first["secret"]
    assert again["token"]["id"] == first["token"]["id"]
    other = await site.send("POST", "/v1/tokens", body, uuid.uuid4().hex)
    assert other["token"]["id"] != first["token"]["id"]
    changed = await site.http.post("/v1/tokens", json={**body, "name": "x"}, headers={"Idempotency-Key": key})
    assert changed.status_code == 422
    assert first["secret"] not in changed.text
    monkeypatch.setattr(tokens, "SHOWN_FOR", timedelta(0))
    late = await site.send("POST", "/v1/tokens", body, key)
    assert (late["secret"], late["token"]["id"]) == (None, first["token"]["id"])
    assert "10 minutes" in late["secret_withheld"]
    assert (await site.send("POST", "/v1/tokens", body))["secret"] is not None, "the first answer always shows it"


async def test_two_gateways_share_the_pepper(site: Site, tmp_path: Path) -> None:
    body, key = {"name": "t", "principal": f"user:{await site.user()}"}, uuid.uuid4().hex
    first = await site.send("POST", "/v1/tokens", body, key)
    async with a_site(site.api, tmp_path) as second:
        again = await second.send("POST", "/v1/tokens", body, key)
        assert again["secret"] == first["secret"]
        await second.gateway.directory.reach_end()
        assert (await second.get(first["secret"])).status_code == 200
    async with a_site(site.api, tmp_path, pepper_file=tmp_path / "another.key") as stranger:
        again = await stranger.send("POST", "/v1/tokens", body, key)
        assert again["secret"] is None, "it would be a wrong one"
        await stranger.gateway.directory.reach_end()
        assert (await stranger.get(first["secret"])).status_code == 401


async def test_what_limits_a_token(site: Site) -> None:
    user = await site.user("operator")
    read_only = await site.token(user, read_only=True)
    assert (await site.get(read_only, "/v1/nodes")).status_code == 200
    refused = await site.http.post("/v1/tags", json={"name": "x"}, headers=bearer(read_only))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    viewer = await site.token(user, role="viewer", project="default")
    assert (await site.get(viewer, VMS)).status_code == 200
    assert (await site.get(viewer, "/v1/nodes")).status_code == 403
    refused = await site.http.post(VMS, json={"name": "x", "image": "base", **SPEC}, headers=bearer(viewer))
    assert refused.status_code == 403
    over = {
        "name": "t",
        "principal": f"user:{user}",
        "expires_at": (datetime.now(UTC) + timedelta(days=400)).isoformat(),
    }
    assert (await site.http.post("/v1/tokens", json=over)).status_code == 422


async def test_everybody_sees_their_own_tokens(site: Site) -> None:
    alice, bob = await site.user(), await site.user()
    mine, theirs = await site.token(alice), await site.token(bob)
    ids = [(split(token) or ("", ""))[0] for token in (mine, theirs)]
    position = await site.gateway.directory.store.last_position()
    page = (await site.get(mine, f"/v1/tokens?min_position={position}")).json()
    assert [item["id"] for item in page["items"]] == [ids[0]]
    assert (await site.get(mine, f"/v1/tokens?principal=user:{bob}")).json()["items"] == []
    assert (await site.get(mine, f"/v1/tokens/{ids[0]}")).json()["principal"] == f"user:{alice}"
    assert (await site.get(mine, f"/v1/tokens/{ids[1]}")).status_code == 404
    listed = (await site.http.get(f"/v1/tokens?principal=user:{bob}")).json()
    assert [item["id"] for item in listed["items"]] == [ids[1]]


END = {
    "revoke": ("DELETE", "/v1/tokens/{token}", None),
    "disable": ("POST", "/v1/users/{user}/disable", {}),
    "delete": ("DELETE", "/v1/users/{user}", None),
    "unbind": ("POST", "/v1/users/{user}/unbind", {"role": "auditor"}),
}


async def feed_of(site: Site, token: str, opened: asyncio.Event, path: str = "/v1/feed?from=now") -> str:
    text = ""
    async with site.http.stream("GET", path, headers=bearer(token)) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for piece in answer.aiter_text():
            opened.set()
            text += piece
    return text


@pytest.mark.parametrize("how", END)
async def test_what_ends_a_token_ends_its_feeds_and_waits(site: Site, how: str) -> None:
    user = await site.user("auditor")
    token = await site.token(user)
    other = await site.token(await site.user("auditor"))
    opened, others = asyncio.Event(), asyncio.Event()
    feed = asyncio.create_task(feed_of(site, token, opened))
    going_on = asyncio.create_task(feed_of(site, other, others))
    waiting = asyncio.create_task(site.get(token, "/v1/events?actor=nobody&wait=50s"))
    await asyncio.gather(opened.wait(), others.wait())
    method, path, body = END[how]
    await site.send(method, path.format(token=(split(token) or ("",))[0], user=user), body)
    code, status = ("forbidden", 403) if how == "unbind" else ("unauthorized", 401)
    assert (await feed).endswith(f": ended: {code}\n\n")
    assert (await waiting).status_code == status
    assert (await site.get(token)).status_code == (200 if how == "unbind" else 401)
    assert not going_on.done()
    going_on.cancel()


async def test_a_disabled_user_comes_back_and_a_deleted_one_does_not(site: Site) -> None:
    user = await site.user()
    token = await site.token(user)
    for verb, status in (("disable", 401), ("enable", 200)):
        await site.send("POST", f"/v1/users/{user}/{verb}", {})
        await site.gateway.directory.reach_end()
        assert (await site.get(token)).status_code == status
    await site.send("DELETE", f"/v1/users/{user}")
    await site.send("POST", "/v1/users", {"name": user, "id": user})
    await site.gateway.directory.reach_end()
    assert (await site.get(token)).status_code == 401, "another user has its id now"


async def test_a_role_in_a_project_that_is_unbound_ends_its_feed(site: Site) -> None:
    user = await site.user()
    await site.send("POST", "/v1/projects/default/bind", {"principal": f"user:{user}", "role": "viewer"})
    token, opened = await site.token(user), asyncio.Event()
    feed = asyncio.create_task(feed_of(site, token, opened, "/v1/projects/default/feed?from=now"))
    await opened.wait()
    assert (await site.get(token, "/v1/projects/default")).status_code == 200
    await site.send("POST", "/v1/projects/default/unbind", {"principal": f"user:{user}"})
    assert ": ended: forbidden" in await feed
    await site.gateway.directory.reach_end()
    assert (await site.get(token, "/v1/projects/default")).status_code == 404


async def test_an_expired_token_ends_its_feed_by_the_clock_of_the_gateway(site: Site) -> None:
    ends = datetime.now(UTC) + timedelta(minutes=5)
    token, opened = await site.token(await site.user("auditor"), expires_at=ends.isoformat()), asyncio.Event()
    feed = asyncio.create_task(feed_of(site, token, opened))
    await opened.wait()
    [source] = [each for each in site.gateway.access.sources or () if isinstance(each, LogTokens)]
    real = source.clock
    try:
        for skew, status in ((-3600, 200), (240, 200), (301, 401)):
            source.clock = lambda skew=skew: datetime.now(UTC) + timedelta(seconds=skew)  # type: ignore[misc]
            assert (await site.get(token)).status_code == status, skew
        assert ": ended: unauthorized" in await feed
    finally:
        source.clock = real


async def test_a_gateway_that_cannot_read_the_log_knows_nobody(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event log's server is paused: the connection stays open, and nothing comes."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(platform(tmp_path, postgres))
        folder = tmp_path / "site"
        folder.mkdir()
        site = await stack.enter_async_context(a_site(api, folder, identity_seconds=2))
        token, opened = await site.token(await site.user("auditor")), asyncio.Event()
        feed = asyncio.create_task(feed_of(site, token, opened))
        await opened.wait()
        pid = api.side.nats.pid
        os.kill(pid, signal.SIGSTOP)
        try:

            async def refused() -> bool:
                answer = await site.get(token)
                return (answer.status_code, answer.json().get("code")) == (503, "identity_unavailable")

            await eventually(refused, "its token is not accepted any more")
            answer = await site.get(token)
            assert answer.headers["retry-after"] == "1"
            assert ": ended: identity_unavailable" in await feed
            assert (await site.http.get("/v1/me")).json()["principal"] == "admin", "the way in without the log"
            metrics = (await site.http.get("/metrics")).text
            assert float(metrics.split("\nnebula_identity_behind_seconds ")[1].split()[0]) > 2
        finally:
            os.kill(pid, signal.SIGCONT)

        async def accepted() -> bool:
            return (await site.get(token)).status_code == 200

        await eventually(accepted, "it is accepted again")


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_console_ends_with_its_token(guest: Guest, tmp_path: Path, how: str) -> None:
    async with a_site(guest.api, tmp_path) as site:
        token = await site.token(await site.user("operator"))
        there = f"ws{site.url.removeprefix('http')}{VMS}/{guest.vm}/console"
        async with connect(there, additional_headers=bearer(token), proxy=None) as socket:
            await speaks(socket)
            if how == "revoked":
                await site.send("DELETE", f"/v1/tokens/{(split(token) or ('',))[0]}")
            else:
                [source] = [each for each in site.gateway.access.sources or () if isinstance(each, LogTokens)]
                source.clock = lambda: datetime.now(UTC) + timedelta(days=91)
            code, _ = await ended(socket)
            assert code == 1008
