"""Placement: every VM without a node gets one, in the order of their creation, as soon as one has room.

The VM's and the node's event go in one atomic batch, so two schedulers can never promise the same room twice: the loser
of a race sees its batch refused, waits for the world to move, and looks again.
"""

import asyncio
from dataclasses import dataclass

from domain import image, node, vm
from domain.base import Resources
from domain.placement import Policy, place
from domain.vm import DeferVm, DropVm, ScheduleVm, Vm
from eventstore.envelope import Ref
from eventstore.store import Change, Conflict, EventStore, Unavailable
from handlers.apply import manager, now
from handlers.world import Changes, World
from runtime import logs, subjects

log = logs.get(__name__)

RETRY = 0.5


@dataclass(frozen=True)
class Release:
    """A promise to a VM that is gone."""

    node: str
    vm: str


def candidates(world: World, changes: Changes) -> list[str]:
    """The VMs to look at: all that wait when a node has changed, else those that just came."""
    if changes.everything or changes.of("node"):
        return list(world.waiting)
    return [vm_id for vm_id in changes.of("vm") if vm_id in world.waiting]


def gone(found: Vm, world: World) -> DropVm | None:
    """Whether what a VM was to be built on was deleted at the same moment as it was asked for."""
    project, base = world.project(found.project), world.image(found.image)
    what = None
    if project is None or project.deleted:
        what = ("project_not_found", f"project {found.project} was deleted")
    elif base is None or base.phase is image.ImagePhase.DELETED:
        what = ("image_not_found", f"image {found.image} was deleted")
    return DropVm(vm=found.id, at=now(), code=what[0], detail=what[1]) if what else None


def released(world: World, changes: Changes) -> list[Release]:
    """The promises to VMs that are gone."""
    if not changes.everything and not any(vm_id in world.deleted_vms for vm_id in changes.of("vm")):
        return []
    return [Release(n.id, vm_id) for n in world.nodes() for vm_id in n.reservations if vm_id in world.deleted_vms]


class Placer:
    """Runs placement whenever the world moves."""

    def __init__(self, store: EventStore, world: World, policy: Policy) -> None:
        self._store = store
        self._world = world
        self._policy = policy
        self._watch = world.watch()
        self._context = manager("placement")

    async def run(self) -> None:
        while True:
            changes = await self._watch.next()
            try:
                await self.round(changes)
            except Conflict:
                await asyncio.sleep(0.01)  # the winner's event is on its way here
                self._watch.ring(everything=True)
            except Unavailable as error:
                log.warning("placement waits for the log", error=str(error))
                await asyncio.sleep(RETRY)
                self._watch.ring(everything=True)

    async def round(self, changes: Changes) -> None:
        """Give back what is promised to the dead, then place whoever waits."""
        for promise in released(self._world, changes):
            books = self._world.get(Ref(subjects.SYSTEM, "node", promise.node))
            events = node.decide(books.state, node.Release(node=promise.node, vm=promise.vm, at=now()))
            await self._append([Change(books.tip, events)])
        for vm_id in candidates(self._world, changes):
            await self._place(vm_id)

    async def _place(self, vm_id: str) -> None:
        loaded = self._world.vm(vm_id)
        if loaded is None or loaded.state is None:
            return
        found = loaded.state
        dropped = gone(found, self._world)
        if dropped is not None:
            await self._append([Change(loaded.tip, vm.decide(loaded.state, dropped))])
            return
        wish: Resources = found.spec.resources()
        choice = place(wish, found.region, self._world.nodes(), self._policy)
        if choice.node is None:
            deferred = vm.decide(loaded.state, DeferVm(vm=found.id, at=now(), considered=choice.considered))
            if deferred:
                await self._append([Change(loaded.tip, deferred)])
                log.info("vm waits for room", vm=found.id, project=found.project)
            return
        at = now()
        chosen = ScheduleVm(vm=found.id, at=at, node=choice.node, considered=choice.considered)
        books = self._world.get(Ref(subjects.SYSTEM, "node", choice.node))
        promised = node.Reserve(node=choice.node, vm=found.id, resources=wish, at=at)
        scheduled = Change(loaded.tip, vm.decide(loaded.state, chosen))
        reserved = Change(books.tip, node.decide(books.state, promised))
        await self._append([scheduled, reserved])
        log.info("vm placed", vm=found.id, project=found.project, node=choice.node)

    async def _append(self, changes: list[Change]) -> None:
        for recorded in await self._store.append(changes, self._context):
            self._world.apply(recorded)
        self._world.nudge()
