"""Deadlines: every pending operation has one in its event; what has passed it times out.

The deadline stands in the log, so a restart forgets none: this loop only compares it with the clock.
"""

import asyncio
from datetime import datetime

from domain import image, vm
from domain.image import ImagePhase, RejectImage
from domain.vm import ExpireOperation
from eventstore.envelope import Ref
from eventstore.store import Conflict, EventStore, Unavailable
from handlers.apply import apply, manager, now
from handlers.world import World
from runtime import logs, subjects

log = logs.get(__name__)


def overdue(world: World, at: datetime) -> list[ExpireOperation]:
    """The operations whose time is up."""
    return [
        ExpireOperation(vm=v.id, operation=v.pending.operation, at=at)
        for v in world.vms()
        if v.pending is not None and v.pending.deadline <= at
    ]


def unverified(world: World, at: datetime) -> list[RejectImage]:
    """The images whose verification takes too long."""
    return [
        RejectImage(
            image=i.id,
            registration=i.registered_by,
            at=at,
            code="timed_out",
            detail="the image could not be read in time",
            field="source",
        )
        for i in world.images()
        if i.phase is ImagePhase.VERIFYING and i.updated_at + image.VERIFY_DEADLINE <= at
    ]


async def watch_deadlines(store: EventStore, world: World, *, every: float = 1.0) -> None:
    """Look every so many seconds, for ever."""
    context = manager("deadlines")
    while True:
        await asyncio.sleep(every)
        at = now()
        try:
            for late in overdue(world, at):
                found = world.vm(late.vm)
                if found is not None and found.state is not None:
                    ref = found.tip.ref
                    await apply(store, ref, vm.decide, vm.evolve, late, context)
                    log.warning("operation timed out", vm=late.vm, operation=late.operation)
            for slow in unverified(world, at):
                ref = Ref(subjects.SYSTEM, "image", slow.image)
                await apply(store, ref, image.decide, image.evolve, slow, context)
        except (Unavailable, Conflict) as error:
            log.warning("deadlines wait for the log", error=str(error))
