"""Logs to check: honest ones on real servers, and what somebody with a hex editor and time could make of them."""

import hashlib
import io
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from nats.aio.client import Client

from bench import homes
from domain.base import Event
from domain.project import ProjectCreated, ProjectRenamed
from domain.tag import TagCreated, TagRenamed
from eventstore.integrity import archive, transfer
from eventstore.integrity.checkpoints import Keys, fingerprint, signing_key
from eventstore.integrity.notary import Notary
from eventstore.log.envelope import Context, Recorded, Ref
from eventstore.log.store import Change, EventStore, Tip
from runtime import subjects
from runtime.bus import streams
from runtime.bus.quick_client import QuickClient
from runtime.local.servers import NatsServer, start_nats

START = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)
CONTEXT = Context(actor="alice", request="r-1", traceparent="00-1-2-01")

Document = dict[str, Any]


@dataclass
class Log:
    """One server with an empty platform, and the notary's key."""

    home: Path
    server: NatsServer
    nc: Client

    @property
    def store(self) -> EventStore:
        return EventStore(self.nc)

    @property
    def keys(self) -> Keys:
        public = signing_key(self.home / "checkpoint.key").public_key()
        return {fingerprint(public): public}

    def notary(self) -> Notary:
        """One that was just started: it remembers nothing."""
        return Notary(self.nc, signing_key(self.home / "checkpoint.key"))

    async def grow(self, events: int, *, first: int = 0, names: int = 5) -> None:
        """Append events to some projects and tags, one by one and in batches of two."""
        tips: dict[str, Tip] = {}
        for number in range(first, first + events):
            name = f"p{number % names}"
            ref = Ref(name, "project", name) if number % 2 else Ref("system", "tag", name)
            if ref.subject not in tips:
                tips[ref.subject] = (await self.store.load(ref, no_state)).tip
            tip = tips[ref.subject]
            event = example(ref, tip.version, number)
            batch = [event, example(ref, tip.version + 1, number)] if number % 7 == 6 else [event]
            for recorded in await self.store.append([Change(tip, batch)], CONTEXT):
                tips[ref.subject] = tips[ref.subject].after(recorded)

    async def all(self) -> list[Recorded]:
        return await self.store.read(0, None, 100_000)

    async def lay(self, events: Iterable[Recorded]) -> None:
        """Write events into the stream as they are, past the store and its checks."""
        await streams.ensure_all(self.nc.jetstream(), 1)
        for recorded in events:
            await self.nc.jetstream().publish(recorded.subject, recorded.body, headers=dict(recorded.headers))

    async def export(self, path: Path, after: int = 0, to: int | None = None) -> transfer.Exported:
        with path.open("wb") as file:
            return await transfer.export(self.nc, file, after=after, to=to)


def no_state(_state: None, _event: Event) -> None:
    """To load a tip and nothing else."""


def example(ref: Ref, version: int, number: int) -> Event:
    stamp: Document = {"at": START + timedelta(seconds=number), "operation": str(UUID(int=number)), "fingerprint": "f"}
    name = f"Näme \u2028 {number}"
    match ref.kind, version:
        case "project", 0:
            return ProjectCreated(**stamp, project=ref.id, name=name, tags=("a", "b"))
        case "project", _:
            return ProjectRenamed(**stamp, name=name)
        case _, 0:
            return TagCreated(**stamp, tag=ref.id, name=name)
        case _:
            return TagRenamed(**stamp, name=name)


@asynccontextmanager
async def running(home: Path | None = None) -> AsyncIterator[Log]:
    """A server of its own, with an empty log unless `home` holds one."""
    with homes.home("integrity") as fresh:
        place = home or fresh
        server = await start_nats(place)
        nc = QuickClient()
        await nc.connect(server.url)
        try:
            await streams.ensure_all(nc.jetstream(), 1)
            yield Log(place, server, nc)
        finally:
            await nc.close()
            await server.stop()


def altered(recorded: Recorded, **headers: str) -> Recorded:
    """The event with other headers, `ce_prevhash=…`."""
    return replace(recorded, headers={**recorded.headers, **{k.replace("_", "-"): v for k, v in headers.items()}})


def rewrite(source: Path, target: Path, change: Callable[[list[Document]], list[Document]]) -> None:
    """What a forger does: change the lines at will, then make every sum and the footer right again."""
    documents = [json.loads(text) for text in source.read_bytes().splitlines()]
    for document in documents:
        del document["sum"]
    changed = change(documents[:-1])
    events = [d for d in changed if d["kind"] == "event"]
    written = io.BytesIO()
    for document in changed:
        written.write(archive.line(document))
    footer = {
        **documents[-1],
        "to": events[-1]["position"] if events else 0,
        "events": len(events),
        "checkpoints": sum(d["kind"] == "checkpoint" for d in changed),
        "sha256": hashlib.sha256(written.getvalue()).hexdigest(),
    }
    target.write_bytes(written.getvalue() + archive.line(footer))


async def raw(nc: Client, stream: str = subjects.EVENTS) -> list[tuple[str, str]]:
    """Every message as the server holds it, base64: headers without those that speak of storage, and body."""
    found = []
    info = await nc.jetstream().stream_info(stream)
    for sequence in range(1, info.state.last_seq + 1):
        message = await nc.jetstream().get_msg(stream, seq=sequence)
        own = [(k, v) for k, v in (message.headers or {}).items() if not k.startswith(("Nats-", "Nebula-"))]
        found.append((json.dumps([message.subject, own]), (message.data or b"").hex()))
    return found
