"""Placement: every VM without a node gets one, in the order of their creation, as soon as one has room.

The VM's and the node's event go in one atomic batch, so two schedulers can never promise the same room twice: the loser
of a race sees its batch refused, waits for the world to move, and looks again.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TypeVar

from domain import image, mac, node, vm
from domain.base import Event
from domain.node import Node
from domain.placement import Policy, place
from domain.vm import DeferVm, DropVm, ScheduleVm, Vm
from domain.vm.features import features
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, Conflict, EventStore, Unavailable
from handlers.apply import manager, now
from handlers.managers.driver import Driver
from handlers.world.turns import Turns
from handlers.world.world import Changes, World
from runtime import logs, subjects

log = logs.get(__name__)

T = TypeVar("T")

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
        """One item at a time: they all write into the nodes' books, and waited in this order."""
        return Driver("placement", self._look, watch=self._watch, at_a_time=1)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        """Give back what is promised to the dead, then place whoever waits."""
        over = {f"release {promise.vm}": promise for promise in released(self._world, changes)}
        await self._together(over, self._release, driver)
        waiting = {vm_id: vm_id for vm_id in candidates(self._world, changes)}
        await self._together(waiting, self._place, driver)

    async def _together(
        self, items: Mapping[str, T], do: Callable[[Sequence[T]], Awaitable[None]], driver: Driver
    ) -> None:
        """Up to `MOST` items in one batch; where one of them is at fault, it alone backs off, and its error is told."""
        for keys in batched([key for key in items if not driver.knows(key)], MOST):
            try:
                await do([items[key] for key in keys])
            except (Conflict, Unavailable):
                raise
            except Exception:
                for key in keys:
                    driver.each(key, partial(do, [items[key]]))

    async def _release(self, promises: Sequence[Release]) -> None:
        await self._append(releases(promises, self._world))

    async def _place(self, vm_ids: Sequence[str]) -> None:
        await self._turns.wait()
        waiting = [vm_id for vm_id in vm_ids if vm_id in self._world.waiting]
        await self._append(decisions(waiting, self._world, self._policy))

    async def _append(self, changes: list[Change]) -> None:
        for recorded in await self._store.append(changes, self._context):
            self._world.apply(recorded)
            if recorded.ref.kind == "vm":
                self._watch.forget(recorded.ref)
                log.info("vm placement", vm=recorded.ref.id, type=recorded.type, position=recorded.position)
        self._world.nudge()


def releases(promises: Iterable[Release], world: World) -> list[Change]:
    """What is to be appended to the nodes' books to give back what was promised."""
    made = []
    for node_id, of_node in groupby(sorted(promises, key=attrgetter("node")), attrgetter("node")):
        books = world.get(Ref(subjects.SYSTEM, "node", node_id))
        at, state, events = now(), books.state, list[Event]()
        for promise in of_node:
            for event in node.decide(state, node.Release(node=node_id, vm=promise.vm, at=at)):
                state = node.evolve(state, event)
                events.append(event)
        made.append(Change(books.tip, events))
    return made


def decisions(vm_ids: Sequence[str], world: World, policy: Policy) -> list[Change]:
    """What is to be appended for these VMs: each placement is made on the books that the ones before it left."""
    nodes = {found.id: found for found in world.nodes()}
    reserved: dict[str, list[Event]] = {}
    made: list[Change] = []
    at, given = now(), set[str]()
    for vm_id in vm_ids:
        loaded = world.vm(vm_id)
        if loaded is None or loaded.state is None:
            continue
        found = loaded.state
        command = gone(found, world) or where(found, nodes.values(), policy, at, architecture(found, world))
        if isinstance(command, ScheduleVm):  # drawn by lot: two who place at once, and know nothing of each other
            address = mac.free(secrets.randbelow(mac.ADDRESSES), lambda one: one in given or world.macs.taken(one))
            command = command.model_copy(update={"mac": address})
        events = vm.decide(found, command)
        if events:
            made.append(Change(loaded.tip, events))
        if isinstance(command, ScheduleVm) and events:
            given.add(command.mac or "")
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
    choice = place(found.spec.resources(), found.region, nodes, policy, architecture, features(found))
    if choice.node is None:
        return DeferVm(vm=found.id, at=at, considered=choice.considered)
    return ScheduleVm(vm=found.id, at=at, node=choice.node, considered=choice.considered)


def batched(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))
