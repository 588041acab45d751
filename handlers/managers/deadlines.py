"""Deadlines: every pending operation has a deadline in its event. After that it times out.

A VM that waits for an automatic restart has a time for it too: after its guest went off, or because its node's disk was
full. The latter waits longer while the node reports that the disk is still full. All times are in the log, so none is
lost when a process ends: this loop only compares them with the clock.
"""

import uuid
from collections.abc import Callable
from datetime import datetime
from functools import partial

from domain import image, vm
from domain.image import RejectImage
from domain.vm import ExpireOperation, Phase, RestartByPolicy, Vm
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore
from handlers.apply import apply, manager, now
from handlers.managers.driver import Driver
from handlers.world.watch import Changes
from handlers.world.world import World
from runtime import logs, subjects

log = logs.get(__name__)

#: The UUID namespace for the ids of operations of automatic restarts.
RESTARTS = uuid.UUID("0b5f2c5e-33a1-4d1a-8c0c-6d7b1f6b9b52")


def due(world: World, at: datetime) -> list[Vm]:
    """The VMs of which a deadline or a restart is due."""
    found = (world.vm(id_) for id_ in world.due.by(at))
    return [loaded.state for loaded in found if loaded is not None and loaded.state is not None]


def overdue(world: World, at: datetime) -> list[ExpireOperation]:
    """The operations whose deadline has passed, without those of void VMs, which placement drops."""
    return [
        ExpireOperation(vm=v.id, operation=v.pending.operation, at=at)
        for v in due(world, at)
        if v.pending is not None and v.pending.deadline <= at and v.id not in world.references.void
    ]


def restarts(world: World, at: datetime, disk_is_full: Callable[[str], bool]) -> list[RestartByPolicy]:
    """The VMs that are started again now. The id of the operation is derived from VM, boot and time."""
    return [
        RestartByPolicy(vm=v.id, operation=str(uuid.uuid5(RESTARTS, f"{v.id} {v.boots} {v.restart_at}")), at=at)
        for v in due(world, at)
        if v.restart_at is not None
        and v.restart_at <= at
        and (v.phase is Phase.STOPPED or (v.phase is Phase.FAILED and not disk_is_full(v.node or "")))
    ]


def unverified(world: World, at: datetime) -> list[RejectImage]:
    """The images that could not be verified before their deadline."""
    return [
        RejectImage(
            image=i.id,
            registration=i.registered_by,
            at=at,
            code="timed_out",
            detail="the image could not be read before the deadline; check its source, and register it again",
            field="source",
        )
        for i in map(world.image, world.unverified.by(at))
        if i is not None
    ]


class Deadlines:
    """Compares the times in the world with the clock, and appends what is due."""

    def __init__(self, store: EventStore, world: World, disk_is_full: Callable[[str], bool]) -> None:
        """`disk_is_full`: whether a node, by its id, is known to have no room."""
        self._store = store
        self._world = world
        self._disk_is_full = disk_is_full
        self._context = manager("deadlines")

    def driver(self, *, every: float = 1.0) -> Driver:
        return Driver("deadlines", self._look, period=every)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        at = now()
        for late in overdue(self._world, at):
            driver.submit(f"operation {late.vm}", partial(self._expire, late))
        for due in restarts(self._world, at, self._disk_is_full):
            driver.submit(f"restart {due.vm}", partial(self._restart, due))
        for slow in unverified(self._world, at):
            driver.submit(f"image {slow.image}", partial(self._reject, slow))

    async def _expire(self, late: ExpireOperation) -> None:
        found = self._world.vm(late.vm)
        if found is not None and found.state is not None:
            await apply(self._store, found.tip.ref, vm.decide, vm.evolve, late, self._context, world=self._world)
            log.warning("operation timed out", vm=late.vm, operation=late.operation)

    async def _restart(self, due: RestartByPolicy) -> None:
        found = self._world.vm(due.vm)
        if found is not None:
            starts = manager("deadlines", operation=due.operation)
            await apply(self._store, found.tip.ref, vm.decide, vm.evolve, due, starts, world=self._world)
            log.info("vm restarted automatically", vm=due.vm, operation=due.operation)

    async def _reject(self, slow: RejectImage) -> None:
        ref = Ref(subjects.SYSTEM, "image", slow.image)
        await apply(self._store, ref, image.decide, image.evolve, slow, self._context, world=self._world)
