"""A bare log for the benchmarks of `eventstore`: one durable server with the platform's streams, and nothing else.

Its events carry MACs, and are read with them, as those of the platform do.
"""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats
from nats.aio.client import Client

from bench.homes import home
from domain.base import Event
from domain.vm import Considered, Spec, VmGuestReady, VmRequested, VmScheduled, VmStarted, VmStopped
from eventstore.log.envelope import Context
from eventstore.log.keyring import Keyring, begin
from eventstore.log.store import EventStore
from runtime.bus import streams
from runtime.bus.quick_client import QuickClient
from runtime.local.servers import start_nats
from runtime.tasks.tasks import heed_cancellation

CONTEXT = Context(actor="user:bench", request=str(uuid4()))
AT = datetime(2030, 1, 1, tzinfo=UTC)
KEYS = "event.keys"
"""The file of the event keys, in the folder."""
FLOOR = "FLOOR"
"""The stream of the floor: configured as the log is, on the same server."""


@dataclass
class Log:
    url: str
    #: as the platform's roles connect, and as anybody would
    ours: Client
    bare: Client
    home: Path
    #: the keys of the events
    keys: Keyring

    async def request(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Ask the server with the bare client. Raises RuntimeError when it refuses."""
        answer: dict[str, Any] = json.loads((await self.bare.request(subject, body, 10, headers=headers)).data)
        if "error" in answer:
            raise RuntimeError(f"{subject}: {answer['error']}")
        return answer


@asynccontextmanager
async def log() -> AsyncIterator[Log]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(home("bench"))
        server = await start_nats(folder)
        stack.push_async_callback(server.stop)
        bare = await nats.connect(server.url)
        stack.push_async_callback(bare.close)
        ours = QuickClient()
        await ours.connect(server.url)
        stack.push_async_callback(ours.close)
        await streams.ensure_all(bare.jetstream(), 1)
        await bare.jetstream().add_stream(streams.events_stream(1), name=FLOOR, subjects=["floor.>"])
        heed_cancellation()
        keys = await begin(folder / KEYS, EventStore(bare))
        yield Log(server.url, ours, bare, folder, keys)


def life(vm: str) -> list[Event]:
    """Five events in the life of a VM."""
    operation = str(uuid4())
    return [
        VmRequested(
            at=AT,
            operation=operation,
            fingerprint="f" * 64,
            deadline=AT,
            vm=vm,
            project="bench",
            name="web-1",
            image="debian-12",
            spec=Spec(vcpus=1, memory_mib=512, disk_gib=4),
        ),
        VmScheduled(at=AT, operation=operation, node="n1", epoch=1, deadline=AT, considered=(Considered(node="n1"),)),
        VmStarted(at=AT, operation=operation, node="n1", sequence=17, boots=1, addresses=("192.168.122.17",)),
        VmGuestReady(at=AT, hostname="web-1", host_keys=()),
        VmStopped(at=AT, node="n1", sequence=18, cause="guest"),
    ]
