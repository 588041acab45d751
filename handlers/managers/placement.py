"""Placement: each VM without a node gets one as soon as a node has room, in the order of the VMs' creation.

The event of the VM and that of the node are in one atomic batch. So two processes can never promise the same resources
twice: the batch of the second one is refused, and it decides again once the world has changed.
"""

import asyncio
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
from domain.vm import DeferVm, DropVm, ScheduleVm, Vm, VmScheduled
from domain.vm.features import features
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, Conflict, EventStore, Unavailable
from eventstore.vault.vault import Vault
from handlers.apply import manager, now
from handlers.managers.driver import Driver
from handlers.world.turns import Turns
from handlers.world.watch import Changes
from handlers.world.world import World
from runtime import logs, subjects

log = logs.get(__name__)

T = TypeVar("T")

#: Maximum number of VMs in one batch.
MOST = 64


@dataclass(frozen=True)
class Release:
    """The reservation of a deleted VM, which has to be released."""

    node: str
    vm: str


def candidates(world: World, changes: Changes) -> list[str]:
    """The VMs to place: if a node has changed, all that wait for one; otherwise the new ones."""
    if changes.everything or changes.of("node"):
        return list(world.waiting)
    return [vm_id for vm_id in changes.of("vm") if vm_id in world.waiting]


def drop_of(found: Vm, world: World) -> DropVm | None:
    """The command to drop a VM that is void, or whose project or image was deleted (in logs of earlier versions)."""
    void = world.references.void.get(found.id)
    if void is not None:
        return DropVm(vm=found.id, at=now(), code=void.code, detail=void.detail)
    project, base = world.project(found.project), world.image(found.image)
    reason = None
    if project is None or project.deleted:
        reason = ("project_not_found", f"project {found.project} was deleted")
    elif base is None or base.phase is image.ImagePhase.DELETED:
        reason = ("image_not_found", f"image {found.image} was deleted")
    return DropVm(vm=found.id, at=now(), code=reason[0], detail=reason[1]) if reason else None


def reservations_of_deleted(world: World, changes: Changes) -> list[Release]:
    """The reservations of the VMs that were deleted; of all deleted ones, if everything may have changed."""
    if changes.everything:
        return [Release(n.id, vm_id) for n in world.nodes() for vm_id in n.reservations if vm_id in world.deleted_vms]
    deleted = [vm_id for vm_id in changes.of("vm") if vm_id in world.deleted_vms]
    return (
        [Release(n.id, vm_id) for n in world.nodes() for vm_id in deleted if vm_id in n.reservations] if deleted else []
    )


class Placer:
    """Runs placement when the world changes. Up to MOST VMs are in one batch, which costs one write to disk."""

    def __init__(
        self, store: EventStore, world: World, policy: Policy, turns: Turns, vault: Vault | None = None
    ) -> None:
        self._vault = vault
        self._preparing: set[asyncio.Future[list[BaseException | None]]] = set()
        self._store = store
        self._world = world
        self._policy = policy
        self._turns = turns
        self._watch = world.watch()
        self._context = manager("placement")

    def driver(self) -> Driver:
        """One item at a time, because all items change the nodes' reservations, and in the order of creation."""
        return Driver("placement", self._look, watch=self._watch, at_a_time=1)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        """Release the reservations of deleted VMs, then place VMs that wait."""
        deleted = {f"release {one.vm}": one for one in reservations_of_deleted(self._world, changes)}
        await self._together(deleted, self._release, driver)
        waiting = {vm_id: vm_id for vm_id in candidates(self._world, changes)}
        await self._together(waiting, self._place, driver)

    async def _together(
        self, items: Mapping[str, T], do: Callable[[Sequence[T]], Awaitable[None]], driver: Driver
    ) -> None:
        """Up to MOST items in one batch. If that fails by an error, each becomes an item of its own, and only the one
        with the error backs off.
        """
        for keys in batched([key for key in items if not driver.knows(key)], MOST):
            try:
                await do([items[key] for key in keys])
            except (Conflict, Unavailable):
                raise
            except Exception:
                for key in keys:
                    driver.submit(key, partial(do, [items[key]]))

    async def _release(self, reservations: Sequence[Release]) -> None:
        await self._append(releases(reservations, self._world))

    async def _place(self, vm_ids: Sequence[str]) -> None:
        await self._turns.wait()
        waiting = [vm_id for vm_id in vm_ids if vm_id in self._world.waiting]
        changes = decisions(waiting, self._world, self._policy)
        self._prepare_keys(changes)
        await self._append(changes)

    def _prepare_keys(self, changes: Iterable[Change]) -> None:
        """Create the keys of VMs that get a node now, while that is stored: the read models and the VM's document need
        them next. If it fails, dispatch creates them.
        """
        if self._vault is None:
            return
        placed = [change.tip.ref.id for change in changes if any(isinstance(one, VmScheduled) for one in change.events)]
        work = asyncio.gather(*map(self._vault.prepare, placed), return_exceptions=True)
        self._preparing.add(work)
        work.add_done_callback(self._preparing.discard)

    async def _append(self, changes: list[Change]) -> None:
        for recorded in await self._store.append(changes, self._context):
            self._world.apply(recorded)
            if recorded.ref.kind == "vm":
                self._watch.forget(recorded.ref)
                log.info("vm placement", vm=recorded.ref.id, type=recorded.type, position=recorded.position)
        self._world.nudge()


def releases(reservations: Iterable[Release], world: World) -> list[Change]:
    """The changes of the nodes that release these reservations."""
    changes = []
    for node_id, of_node in groupby(sorted(reservations, key=attrgetter("node")), attrgetter("node")):
        loaded = world.get(Ref(subjects.SYSTEM, "node", node_id))
        at, state, events = now(), loaded.state, list[Event]()
        for reservation in of_node:
            for event in node.decide(state, node.Release(node=node_id, vm=reservation.vm, at=at)):
                state = node.evolve(state, event)
                events.append(event)
        changes.append(Change(loaded.tip, events))
    return changes


def decisions(vm_ids: Sequence[str], world: World, policy: Policy) -> list[Change]:
    """The changes that place these VMs. Each decision takes account of the reservations of those before it."""
    nodes = {found.id: found for found in world.nodes()}
    reserved: dict[str, list[Event]] = {}
    changes: list[Change] = []
    at, given = now(), set[str]()
    for vm_id in vm_ids:
        loaded = world.vm(vm_id)
        if loaded is None or loaded.state is None:
            continue
        found = loaded.state
        command = drop_of(found, world) or choose(found, nodes.values(), policy, at, architecture(found, world))
        if isinstance(command, ScheduleVm):  # a random address: another process may place a VM at the same time
            address = mac.free(secrets.randbelow(mac.ADDRESSES), lambda one: one in given or world.macs.taken(one))
            command = command.model_copy(update={"mac": address})
        events = vm.decide(found, command)
        if events:
            changes.append(Change(loaded.tip, events))
        if isinstance(command, ScheduleVm) and events:
            given.add(command.mac or "")
            reserve = node.Reserve(node=command.node, vm=vm_id, resources=found.spec.resources(), at=at)
            for event in node.decide(nodes[command.node], reserve):
                reserved.setdefault(command.node, []).append(event)
                nodes[command.node] = node.evolve(nodes[command.node], event) or nodes[command.node]
    for node_id, of_node in reserved.items():
        changes.append(Change(world.get(Ref(subjects.SYSTEM, "node", node_id)).tip, of_node))
    return changes


def architecture(found: Vm, world: World) -> str | None:
    """The architecture of a VM's image."""
    base = world.image(found.image)
    return base.architecture if base is not None else None


def choose(
    found: Vm, nodes: Iterable[Node], policy: Policy, at: datetime, architecture: str | None = None
) -> ScheduleVm | DeferVm:
    """The command that places a VM on the best node, or lets it wait if no node has room."""
    choice = place(found.spec.resources(), found.region, nodes, policy, architecture, features(found))
    if choice.node is None:
        return DeferVm(vm=found.id, at=at, considered=choice.considered)
    return ScheduleVm(vm=found.id, at=at, node=choice.node, considered=choice.considered)


def batched(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))
