"""The data source as guests reach it, for the tests."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from eventstore.log.envelope import Ref
from projections.cloud_init import Source
from runtime import listener
from runtime.local.servers import Postgres
from tests.projections.cloud import Cloud, projected


@dataclass
class Guests:
    cloud: Cloud
    http: httpx.AsyncClient
    host: str

    async def secret(self, ref: Ref, boots: int = 1) -> str:
        return await self.cloud.vault.seed_secret(ref.id, boots)

    async def get(self, secret: str, name: str) -> httpx.Response:
        return await self.http.get(f"/{secret}/{name}")

    async def opens(self, ref: Ref, boots: int) -> bool:
        return (await self.get(await self.secret(ref, boots), "meta-data")).status_code == 200

    async def phone(self, secret: str, **form: str) -> httpx.Response:
        return await self.http.post(f"/{secret}/phone-home", data=form)


@pytest.fixture(scope="module")
async def guests(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[Guests]:
    home: Path = tmp_path_factory.mktemp("seeds")
    async with projected(home, postgres) as (cloud, pool):
        sock = listener.bind("127.0.0.1", 0)
        host = f"127.0.0.1:{sock.getsockname()[1]}"
        stop = asyncio.Event()
        source = Source(cloud.nc, pool, cloud.vault, cloud.position)
        serving = asyncio.create_task(listener.serve(source, sock, stop))
        async with httpx.AsyncClient(base_url=f"http://{host}", timeout=30) as http:
            yield Guests(cloud, http, host)
        stop.set()
        await serving


async def placed(guests: Guests, **more: Any) -> Ref:
    ref = await guests.cloud.create(**more)
    await guests.cloud.place(ref)
    return ref
