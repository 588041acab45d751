"""What a command costs on a VM with many operations behind it, next to one on a VM with few.

Both go over the command loop, one at a time and in turns; both replies are measured too.
"""

import asyncio
import statistics
import time
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import uuid4

from bench.log import AT, CONTEXT, Log, life
from domain.access import Grant, Role
from domain.contract import Caller, CommandRequest
from domain.project import ProjectCreated
from domain.vm import VmChanged
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, EventStore, Tip
from eventstore.parking.parking import Parking
from eventstore.vault.vault import Vault
from handlers.commands.lookups import Facts
from handlers.commands.loop import CommandLoop
from handlers.world.turns import Turns
from handlers.world.world import World
from runtime import logs, subjects
from runtime.bus import replies
from runtime.tasks.tasks import heed_cancellation

FEW, MANY = 5, 50_000
BATCH = 500
ROUNDS = 201

PROJECT = "bench"


async def measure(made: Log) -> dict[str, Any]:
    """Milliseconds (median) of a change of both VMs, and bytes of both replies."""
    logs.configure("bench", "warning", "text")
    store = EventStore(made.bare, made.keys)
    created = ProjectCreated(at=AT, operation=str(uuid4()), fingerprint="f" * 64, project=PROJECT, name="Bench")
    await store.append([Change(Tip(Ref(PROJECT, "project", PROJECT)), [created])], CONTEXT)
    few, many = [await vm(store, operations) for operations in (FEW, MANY)]
    world = World()
    commands = CommandLoop(
        made.ours,
        EventStore(made.ours, made.keys, frontier=world.frontier),
        Facts(world, Vault.of(made.ours, made.home / "master.key")),
        Parking(made.ours),
    )
    following = asyncio.create_task(world.follow(made.ours, Turns(commands.in_flight), made.keys))
    await world.reached(await store.last_position())
    await commands.start()
    await made.ours.flush()
    numbers = count()
    took: dict[str, list[float]] = {few: [], many: []}
    sizes: dict[str, int] = {}
    for _ in range(ROUNDS):
        for id_, times in took.items():
            heed_cancellation()
            started = time.perf_counter()
            sizes[id_] = await change(made, id_, next(numbers))
            times.append(time.perf_counter() - started)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    mine, floor = statistics.median(took[many]), statistics.median(took[few])
    return {
        f"change_with_{FEW}_operations_ms": round(floor * 1e3, 2),
        f"change_with_{MANY}_operations_ms": round(mine * 1e3, 2),
        "change_ratio": round(floor / mine, 3),
        f"reply_with_{FEW}_operations_bytes": sizes[few],
        f"reply_with_{MANY}_operations_bytes": sizes[many],
    }


async def vm(store: EventStore, operations: int) -> str:
    """A VM that was changed so often."""
    id_ = str(uuid4())
    tip = Tip(Ref(PROJECT, "vm", id_))
    events = [*life(id_), *(changed(number) for number in range(operations - 1))]
    for start in range(0, len(events), BATCH):
        stored = await store.append([Change(tip, events[start : start + BATCH])], CONTEXT)
        tip = tip.after(stored[-1])
    return id_


def changed(number: int) -> VmChanged:
    return VmChanged(at=AT, operation=str(uuid4()), fingerprint=f"{number:064}", deadline=AT, name=f"web-{number}")


async def change(made: Log, id_: str, number: int) -> int:
    """Give a VM another name; the size of the reply."""
    context = Caller(actor="bench", grants=(Grant(Role.OPERATOR),), operation=str(uuid4()), fingerprint=f"{number:064}")
    body = CommandRequest(args={"vm": id_, "name": f"db-{number:09}"}, context=context).body()
    reply = await made.bare.request(subjects.command(PROJECT, "vm", "change"), body, timeout=10)
    if isinstance(replies.read(reply.data), replies.Refusal):
        raise RuntimeError(f"change: {reply.data[:300]!r}")
    return len(reply.data)
