"""A gateway on real servers, with real handlers and real projections behind it."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from domain.contract import Power
from eventstore.vault.vault import Vault
from gateway.app import application, opened
from gateway.state import Gateway
from projections.past.keeper import Keeper
from projections.position import Position
from projections.runner import Runner
from runtime import listener
from runtime.local.servers import Postgres, create_database
from runtime.settings import GatewaySettings
from runtime.tasks.tasks import end
from tests.domain.lives import SPOKEN
from tests.handlers.platform import WriteSide, write_side
from tests.waiting import eventually

SPEC = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}
VMS = "/v1/projects/default/vms"


@dataclass
class Platform:
    side: WriteSide
    gateway: Gateway
    http: httpx.AsyncClient
    url: str
    dsn: str

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.request(method, path, json=body, headers=sent)

    async def get(self, path: str, status: int = 200) -> Any:
        answer = await self.http.get(path)
        while status == 200 and answer.status_code == 503 and "position_not_reached" in answer.text:
            await asyncio.sleep(0.1)  # the read models are behind, on a slow machine
            answer = await self.http.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def create(self, **more: Any) -> dict[str, Any]:
        answer = await self.call("POST", VMS, {"name": "web-1", "image": "base", **SPEC, **more})
        assert answer.status_code == 202, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def running(self, **more: Any) -> dict[str, Any]:
        """A VM that its node reported to run; its id and its operation, as they were accepted."""
        made = await self.create(**more)
        vm = made["vm"]["id"]
        wanted = await eventually(lambda: self.side.wanted(vm), "wanted document")
        await self.side.report(wanted, Power.ON, boots=1, address_sources=(SPOKEN,))
        await self.get(f"/v1/operations/{made['operation']['id']}?wait=30s")
        return made

    async def report(self, vm: str, power: Power, **more: Any) -> None:
        wanted = await self.side.wanted(vm)
        assert wanted is not None
        await self.side.report(wanted, power, **more)


@asynccontextmanager
async def served(side: WriteSide, dsn: str, **settings: Any) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway that listens on a free port of loopback. Without a tokens file or `auth`, it needs no tokens."""
    auth = "tokens" if "tokens_file" in settings else "none"
    common: dict[str, Any] = {"nats_url": side.nats.url, "postgres_dsn": dsn, "home": side.home, "auth": auth}
    chosen = GatewaySettings(**{**common, "refusals_per_minute": 1_000_000, **settings})
    async with opened(chosen) as gateway:
        sock = listener.bind("127.0.0.1", 0)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        app = application(gateway, chosen.console_files)
        serving = asyncio.create_task(listener.serve(app, sock, gateway.stop, chosen.http_limits, websockets=True))
        try:
            yield gateway, url
        finally:
            gateway.stop.set()
            await serving


@asynccontextmanager
async def platform(home: Path, postgres: Postgres) -> AsyncIterator[Platform]:
    """Everything but a node: a project `default`, an image `base`, and a node `host-1` that tests answer for."""
    dsn = await create_database(postgres, f"test_{uuid.uuid4().hex}")
    async with write_side(home, NEBULA_NODE_TIMEOUT="3600") as side:
        await side.start()
        await side.cloud()
        await side.node("host-1", vcpus=1000, memory_mib=10_000_000, disk_gib=1_000_000)
        vault = Vault.of(side.nc, home / "master.key")
        keys = side.store.event_keys
        runner = Runner(side.nc, dsn, vault, Position(), event_keys=keys)
        past = Keeper(side.nc, dsn, runner, keys)
        running = [asyncio.create_task(each.run()) for each in (runner, past)]
        try:
            async with served(side, dsn) as (gateway, url), httpx.AsyncClient(base_url=url, timeout=90) as http:
                made = Platform(side, gateway, http, url, dsn)
                await eventually(made_ready(made), "gateway ready")
                yield made
        finally:
            await end(running)


def made_ready(made: Platform) -> Any:
    async def check() -> bool:
        return (await made.http.get("/healthz")).status_code == 200

    return check


async def frames(http: httpx.AsyncClient, path: str, count: int, **headers: str) -> list[dict[str, Any]]:
    """The first items of a feed, as their data with `sse_id` and `sse_event` beside it."""
    found: list[dict[str, Any]] = []
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.stream("GET", path, headers=sent) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        item: dict[str, str] = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                item[name] = value
            elif "data" in item:
                found.append({**json.loads(item["data"]), "sse_id": item["id"], "sse_event": item["event"]})
                item = {}
                if len(found) == count:
                    return found
    raise AssertionError(f"the feed ended after {len(found)} items")
