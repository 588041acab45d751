"""Handlers in the test's own process: they decide on a real log, as processes do, and cost no start.

Each has a connection and a world of its own, so that the one learns of what the other did as two processes would.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from nats.aio.client import Client

from domain.placement import Policy
from eventstore.log.keyring import begin
from eventstore.log.store import EventStore
from eventstore.parking.parking import Parking
from eventstore.vault.keystore import adopt
from eventstore.vault.vault import Vault
from handlers.commands.lookups import Facts
from handlers.commands.loop import CommandLoop
from handlers.managers.deletions import Deletions
from handlers.managers.liveness import Liveness
from handlers.managers.placement import Placer
from handlers.world.turns import Turns
from handlers.world.world import World
from runtime.bus.quick_client import QuickClient
from runtime.bus.streams import ensure_all
from runtime.tasks.tasks import end


@dataclass
class Decider:
    """What decides, and what finishes deletions. Placement and liveness act only where a test makes them."""

    nc: Client
    world: World
    store: EventStore
    placer: Placer
    liveness: Liveness


@asynccontextmanager
async def deciding(url: str, home: Path) -> AsyncIterator[Decider]:
    """One of them, which answers commands from now on."""
    nc = QuickClient()
    await nc.connect(url, max_reconnect_attempts=-1)
    await ensure_all(nc.jetstream(), 1)
    await adopt(nc)
    world = World()
    keys = await begin(home / "event.keys", EventStore(nc))
    store = EventStore(nc, keys, frontier=world.frontier)
    commands = CommandLoop(nc, store, Facts(world, Vault.of(nc, home / "master.key")), Parking(nc))
    turns = Turns(commands.in_flight)
    tasks = [
        asyncio.create_task(world.follow(nc, turns, keys)),
        asyncio.create_task(Deletions(store, world).driver().run()),
    ]
    await world.reached(await store.last_position())
    await commands.start()
    await nc.flush()
    try:
        yield Decider(nc, world, store, Placer(store, world, Policy(), turns), Liveness(store, world, 3600))
    finally:
        await commands.stop()
        await end(tasks)
        await nc.close()


@asynccontextmanager
async def two(url: str, home: Path) -> AsyncIterator[tuple[Decider, Decider]]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(deciding(url, home))
        yield first, await stack.enter_async_context(deciding(url, home))
