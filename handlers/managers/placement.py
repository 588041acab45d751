"""Placement: every VM without a node gets one, in the order of their creation, as soon as one has room.

The VM's and the node's event go in one atomic batch, so two schedulers can never promise the same room twice: the loser
of a race sees its batch refused, waits for the world to move, and looks again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from domain import image, node, vm
from domain.base import Event
from domain.node import Node
from domain.placement import Policy, place
from domain.vm import DeferVm, DropVm, ScheduleVm, Vm
from eventstore.envelope import Ref
from eventstore.store import Change, Conflict, EventStore, Unavailable
from handlers.apply import manager, now
from handlers.managers.driver import Driver
from handlers.turns import Turns
from handlers.world import Changes, World
from runtime import logs, subjects

log = logs.get(__name__)

MOST = 64


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
    """Whether a VM is void, or what it was to be built on is gone, as a log of an earlier version may have it."""
    void = world.references.void.get(found.id)
    if void is not None:
        return DropVm(vm=found.id, at=now(), code=void.code, detail=void.detail)
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
    """Runs placement whenever the world moves. Up to `MOST` VMs go into one batch: one wait for the disk for all."""

    def __init__(self, store: EventStore, world: World, policy: Policy, turns: Turns) -> None:
        self._store = store
        self._world = world
        self._policy = policy
        self._turns = turns
        self._watch = world.watch()
        self._context = manager("placement")

    def driver(self) -> Driver:
        return Driver("placement", self._look, watch=self._watch)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        """Give back what is promised to the dead, then place whoever waits."""
        for promise in released(self._world, changes):
            await driver.each(f"release {promise.vm}", partial(self._release, promise))
        waiting = [vm_id for vm_id in candidates(self._world, changes) if not driver.backs_off(vm_id)]
        for some in batched(waiting, MOST):
            await self._turns.wait()
            try:
                await self._place(some)
            except (Conflict, Unavailable):
                raise
            except Exception:  # one of them is at fault: that one alone backs off, and its error is told there
                for vm_id in some:
                    await driver.each(vm_id, partial(self._place, [vm_id]))

    async def _release(self, promise: Release) -> None:
        books = self._world.get(Ref(subjects.SYSTEM, "node", promise.node))
        events = node.decide(books.state, node.Release(node=promise.node, vm=promise.vm, at=now()))
        await self._append([Change(books.tip, events)])

    async def _place(self, vm_ids: Sequence[str]) -> None:
        waiting = [vm_id for vm_id in vm_ids if vm_id in self._world.waiting]
        await self._append(decisions(waiting, self._world, self._policy))

    async def _append(self, changes: list[Change]) -> None:
        for recorded in await self._store.append(changes, self._context):
            self._world.apply(recorded)
            if recorded.ref.kind == "vm":
                log.info("vm placement", vm=recorded.ref.id, type=recorded.type, position=recorded.position)
        self._world.nudge()


def decisions(vm_ids: Sequence[str], world: World, policy: Policy) -> list[Change]:
    """What is to be appended for these VMs: each placement is made on the books that the ones before it left."""
    nodes = {found.id: found for found in world.nodes()}
    reserved: dict[str, list[Event]] = {}
    made: list[Change] = []
    at = now()
    for vm_id in vm_ids:
        loaded = world.vm(vm_id)
        if loaded is None or loaded.state is None:
            continue
        found = loaded.state
        command = gone(found, world) or where(found, nodes.values(), policy, at, architecture(found, world))
        events = vm.decide(found, command)
        if events:
            made.append(Change(loaded.tip, events))
        if isinstance(command, ScheduleVm) and events:
            promise = node.Reserve(node=command.node, vm=vm_id, resources=found.spec.resources(), at=at)
            for event in node.decide(nodes[command.node], promise):
                reserved.setdefault(command.node, []).append(event)
                nodes[command.node] = node.evolve(nodes[command.node], event) or nodes[command.node]
    for node_id, promises in reserved.items():
        made.append(Change(world.get(Ref(subjects.SYSTEM, "node", node_id)).tip, promises))
    return made


def architecture(found: Vm, world: World) -> str | None:
    """What a VM's image is made for."""
    base = world.image(found.image)
    return base.architecture if base is not None else None


def where(
    found: Vm, nodes: Iterable[Node], policy: Policy, at: datetime, architecture: str | None = None
) -> ScheduleVm | DeferVm:
    """The node that a VM goes to, or that it has to wait."""
    choice = place(found.spec.resources(), found.region, nodes, policy, architecture)
    if choice.node is None:
        return DeferVm(vm=found.id, at=at, considered=choice.considered)
    return ScheduleVm(vm=found.id, at=at, node=choice.node, considered=choice.considered)


def batched(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))
