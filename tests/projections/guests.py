"""The data source as guests reach it, for the tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.aio.client import Client

from eventstore.log.envelope import Ref
from projections.database import Pool
from projections.guest_answers import GuestAnswers
from projections.guest_data.asker import Asker, NoAnswer
from projections.guest_data.copies import Copies
from projections.guest_data.source import Source
from projections.guest_data.status import Status
from runtime import listener
from runtime.local.servers import Postgres
from runtime.tasks.tasks import end
from tests.projections.cloud import Cloud, projected
from tests.waiting import eventually

#: What `/metrics` needs.
TOKEN = "t" * 32


@dataclass
class Guests:
    cloud: Cloud
    http: httpx.AsyncClient
    host: str
    source: Source
    pool: Pool

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
    async with projected(home, postgres) as (cloud, pool), answering(cloud, pool):
        sock = listener.bind("127.0.0.1", 0)
        host = f"127.0.0.1:{sock.getsockname()[1]}"
        stop = asyncio.Event()
        source = guest_data(cloud.nc)
        serving = asyncio.create_task(listener.serve(source, sock, stop))
        async with httpx.AsyncClient(base_url=f"http://{host}", timeout=30) as http:
            yield Guests(cloud, http, host, source, pool)
        stop.set()
        await serving


def guest_data(nc: Client, folder: Path | None = None) -> Source:
    """The data source, which asks over this connection."""
    asker, copies = Asker(nc), Copies(folder)
    return Source(asker, copies, Status(asker, copies.__len__, TOKEN))


@asynccontextmanager
async def answering(cloud: Cloud, pool: Pool) -> AsyncIterator[GuestAnswers]:
    """The projections' side, once it hears."""
    answers = GuestAnswers(cloud.nc, pool, cloud.vault, cloud.position)
    task = asyncio.create_task(answers.run())
    asker = Asker(cloud.nc)

    async def hears() -> bool:
        try:
            await asker.invalid(())
        except NoAnswer:
            return False
        return True

    try:
        await eventually(hears, "the projections answer")
        yield answers
    finally:
        await end([task])


async def placed(guests: Guests, **more: Any) -> Ref:
    ref = await guests.cloud.create(**more)
    await guests.cloud.place(ref)
    return ref
