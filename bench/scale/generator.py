"""Writes the log of a large cloud through the event store, as handlers write it: the same appends, MACs and chains.

Appends of VMs that are at the same step of their lives are in progress at the same time, so the store groups them. The
vault has the key of each VM, or the tombstone of a deleted one. At the end a notary signs the log.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from nats.aio.client import Client

from bench.scale.lives import AFTER_PLACEMENT, Append, Life, cloud
from domain.base import Event
from eventstore.integrity.checkpoints import signing_key
from eventstore.integrity.notary import Notary
from eventstore.log.envelope import Context, Ref
from eventstore.log.keyring import begin
from eventstore.log.store import Change, EventStore, Tip
from eventstore.vault.keystore import KeyStore
from eventstore.vault.masterkey import Ring
from runtime import subjects
from runtime.bus import streams
from runtime.bus.quick_client import QuickClient
from runtime.local.servers import NATS_CONF, start_nats
from runtime.tasks.tasks import heed_cancellation

AT_ONCE = 512
"""VMs whose lives are written at the same time."""
PLACED = 64
"""VMs that are placed in one append."""
EVENT_KEYS, CHECKPOINT_KEY, MASTER_KEY = "event.keys", "checkpoint.key", "master.key"
KEYS = (EVENT_KEYS, CHECKPOINT_KEY, "checkpoint.pub", MASTER_KEY)
"""The files of keys that a log has beside its store."""
PLACEMENT = Context(actor="system:placement")


class Writer:
    """Appends after the tips that it has written itself."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._tips: dict[Ref, Tip] = {}

    async def append(self, changes: Sequence[tuple[Ref, Sequence[Event]]], context: Context) -> None:
        stored = await self._store.append(
            [Change(self._tips.get(ref) or Tip(ref), events) for ref, events in changes], context
        )
        for recorded in stored:
            self._tips[recorded.ref] = Tip(recorded.ref, recorded.version, recorded.position, recorded.digest)

    async def all(self, appends: Sequence[Append | None]) -> None:
        """Appends to different aggregates, in any order."""
        heed_cancellation()
        await asyncio.gather(
            *(self.append([(each.ref, each.events)], each.context) for each in appends if each is not None)
        )

    async def place(self, lives: Sequence[Life]) -> None:
        """Give nodes to VMs, as placement does."""
        for start in range(0, len(lives), PLACED):
            changes: list[tuple[Ref, Sequence[Event]]] = []
            reserved = defaultdict[str, list[Event]](list)
            for life in lives[start : start + PLACED]:
                scheduled, reservation = life.scheduled()
                changes.append((life.ref, [scheduled]))
                reserved[life.node].append(reservation)
            await self.append([*changes, *of_nodes(reserved)], PLACEMENT)

    async def release(self, lives: Sequence[Life]) -> None:
        """Release the reservations of deleted VMs, as placement does."""
        released = defaultdict[str, list[Event]](list)
        for life in lives:
            if life.deleted:
                released[life.node].append(life.released())
        await self.append(of_nodes(released), PLACEMENT)

    def forget(self, lives: Sequence[Life]) -> None:
        for life in lives:
            del self._tips[life.ref]


def of_nodes(events: dict[str, list[Event]]) -> list[tuple[Ref, Sequence[Event]]]:
    return [(Ref(subjects.SYSTEM, "node", node), of_node) for node, of_node in events.items()]


async def write(nc: Client, home: Path, vms: int, every: int = 0) -> None:
    """Write the whole log to a server that has the platform's streams, and the keys to `home`. `every`: as of Life."""
    keys = await begin(home / EVENT_KEYS, EventStore(nc))
    writer = Writer(EventStore(nc, keys, timeout=60))
    store, ring = KeyStore(nc, timeout=60), Ring(home / MASTER_KEY)
    await writer.all(list(cloud(vms)))
    for start in range(0, vms, AT_ONCE):
        lives = [Life(number, vms, every) for number in range(start, min(vms, start + AT_ONCE))]
        await writer.all([life.requested() for life in lives])
        await writer.place(lives)
        for step in AFTER_PLACEMENT:
            await writer.all([step(life) for life in lives])
        await writer.release(lives)
        await asyncio.gather(*(store.put(life.id, key_of(life, ring), last=0) for life in lives))
        writer.forget(lives)
    await Notary(nc, signing_key(home / CHECKPOINT_KEY), event_keys=keys).step()


def key_of(life: Life, ring: Ring) -> bytes:
    """What the vault has of a VM: a new key, or a tombstone."""
    return b"" if life.deleted else ring.wrap(life.id, secrets.token_bytes(32))


async def generate(home: Path, vms: int, every: int = 0) -> None:
    """Make the store of a server with such a log in an empty folder."""
    lazy = home / "nats.conf"
    lazy.write_text(NATS_CONF.read_text().replace("sync_interval: always", "sync_interval: 2m"))
    server = await start_nats(home, conf=lazy)
    try:
        nc = QuickClient()
        await nc.connect(server.url)
        await streams.ensure_all(nc.jetstream(), 1)
        await write(nc, home, vms, every)
        await nc.close()
    finally:
        await server.stop()
