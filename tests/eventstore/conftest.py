"""One real nats-server for the tests that need not kill it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from eventstore.log.store import EventStore
from runtime.bus.streams import ensure_all
from runtime.local.servers import NatsServer, start_nats
from tests.eventstore.log import connection


@pytest.fixture(scope="session")
async def server(servers_home: Path) -> AsyncIterator[NatsServer]:
    """With the streams of the platform."""
    started = await start_nats(servers_home / "eventstore")
    async with connection(started.url) as nc:
        await ensure_all(nc.jetstream(), 1)
    yield started
    await started.stop()


@pytest.fixture(scope="session")
async def nc(server: NatsServer) -> AsyncIterator[Client]:
    async with connection(server.url) as client:
        yield client


@pytest.fixture(scope="session")
def store(nc: Client) -> EventStore:
    return EventStore(nc)
