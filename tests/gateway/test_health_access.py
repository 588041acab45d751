"""Without the right role, `/healthz` says up or down, and nothing else; no answer tells a stranger of the cloud."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.operators import health
from gateway.state import Gateway
from runtime.local.servers import Postgres
from runtime.token_text import random
from tests.gateway.platform import Platform, platform, served
from tests.gateway.test_access import digest
from tests.waiting import eventually

ROLES = ("operator", "auditor", "viewer@default", "admin@default")
SEES = ("operator", "auditor")


@asynccontextmanager
async def guarded(api: Platform, home: Path) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    """A gateway that needs tokens: each role is also the token of a caller with that role."""
    file = home / "tokens"
    file.write_text("".join(f"c{at} {digest(role)} {role}\n" for at, role in enumerate(ROLES)))
    async with served(api.side, api.dsn, tokens_file=file) as (gateway, url), httpx.AsyncClient(base_url=url) as http:
        yield gateway, http


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("role", [None, *ROLES])
async def test_only_operators_and_auditors_see_the_parts(api: Platform, tmp_path: Path, role: str | None) -> None:
    async with guarded(api, tmp_path) as (_, http):
        answer = await http.get("/healthz", headers=bearer(role))
        assert answer.status_code == 200
        if role in SEES:
            assert {"managers", "clocks_off", "nats", "lag"} <= answer.json().keys()
        else:
            assert answer.json() == {"status": "ok"}
        assert ("nebula-position" in answer.headers) is (role is not None)


async def test_a_wrong_token_is_refused_there_as_elsewhere(api: Platform, tmp_path: Path) -> None:
    """Otherwise tokens could be tried there without being counted."""
    async with guarded(api, tmp_path) as (_, http):
        for wrong in ("no", random()):
            answer = await http.get("/healthz", headers=bearer(wrong))
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        page = await http.get("/v1/refusals", headers=bearer("auditor"))
        assert page.status_code == 200

        async def kept() -> bool:
            items = (await http.get("/v1/refusals", headers=bearer("auditor"))).json()["items"]
            return [each["path"] for each in items[:2]] == ["/healthz", "/healthz"]

        await eventually(kept, "the refusals are kept for auditors")


@pytest.mark.parametrize("status", ["ok", "degraded", "unavailable"])
async def test_a_stranger_learns_up_or_down(
    api: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    async def check(_: Gateway) -> dict[str, Any]:
        part = {"status": "unavailable" if status == "unavailable" else "ok", "detail": "host-1 is away"}
        parts = ("commands", "log", "nats", "postgres", "projections")
        return {"status": status, **{name: dict(part) for name in parts}}

    monkeypatch.setattr(health, "check", check)
    async with guarded(api, tmp_path) as (_, http):
        answer = await http.get("/healthz")
        assert answer.status_code == (503 if status == "unavailable" else 200)
        assert answer.json() == {"status": "unavailable" if status == "unavailable" else "ok"}
        told = await http.get("/healthz", headers=bearer("auditor"))
        assert (told.json()["status"], "host-1" in told.text) == (status, True)


async def test_while_tokens_cannot_be_checked_it_still_says_down(tmp_path: Path, postgres: Postgres) -> None:
    """A token of the log shows nothing then. One of the tokens file, which needs no log, still names the parts."""
    async with platform(tmp_path, postgres) as api, guarded(api, tmp_path) as (gateway, http):
        await api.side.nats.kill()
        directory = gateway.directory
        await eventually(lambda: directory.behind is None or directory.behind > directory.patience, "nobody is known")
        for token in (None, random()):
            answer = await http.get("/healthz", headers=bearer(token))
            assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
        told = (await http.get("/healthz", headers=bearer("operator"))).json()
        assert told["nats"]["status"] == "unavailable"


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/v1/status", "/v1/nodes", "/v1/nodes/host-1", "/v1/projects", "/version", "/no/such", "//healthz"],
)
async def test_no_answer_tells_a_stranger_how_much_happens(api: Platform, tmp_path: Path, path: str) -> None:
    async with guarded(api, tmp_path) as (_, http):
        for token in (None, "no"):
            # The whole address: httpx takes `//healthz` alone for the name of a host.
            answer = await http.get(f"{str(http.base_url).rstrip('/')}{path}", headers=bearer(token))
            assert answer.status_code == 401
            assert "nebula-position" not in answer.headers
            assert answer.json().keys() == {"type", "title", "status", "detail", "code", "request_id"}
            assert "host-1" not in answer.text


@pytest.mark.parametrize("path", ["/v1/openapi.json", "/v1/login", "/v1/ca", "/v1/join"])
async def test_open_paths_tell_nothing_of_the_cloud(api: Platform, tmp_path: Path, path: str) -> None:
    async with guarded(api, tmp_path) as (_, http):
        answer = await http.get(path)
        assert "nebula-position" not in answer.headers
        assert "host-1" not in answer.text and "x-position" not in answer.text


async def test_the_description_says_that_a_token_is_not_needed_there(api: Platform) -> None:
    described = json.loads((await api.http.get("/v1/openapi.json")).content)
    operation = described["paths"]["/healthz"]["get"]
    assert operation["security"] == [{}, {"token": []}]
    assert "401" in operation["responses"]
