"""Placement: each VM without a node gets one as soon as a node has room, in the order of the VMs' creation.

A node's promise (`CapacityReserved`) alone decides whether there is room: it is stored only if nothing else has
happened to the node. For few VMs, each promise is stored before the event of its VM. For many, all events are one
atomic batch.

What stops between the two leaves an unused promise (`World.unused`). If its VM still waits, it gets that node, or
another one if it does not fit any more. Otherwise the promise is released. A VM is only placed after a promise that the
same process has stored for this decision. So a release that was decided before is refused, and no VM is on a node that
has promised it nothing.
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
from domain.base import Event, replace
from domain.candidates import Candidates, place
from domain.node import CapacityReserved
from domain.placement import Placement, Policy, Wish
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
from runtime.tasks.tasks import end, heed_cancellation

log = logs.get(__name__)

T = TypeVar("T")

#: Maximum number of VMs that are placed together.
MOST = 64
#: Number of VMs up to which the promises are stored first, and no batch: a batch costs as much as twenty single events.
FEW = 8


@dataclass(frozen=True)
class Release:
    """A promise of a node to a VM, which has to be released."""

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


def releasable(world: World) -> list[Release]:
    """The promises that nobody will use: to VMs that are deleted, failed without a node, or on another node.

    A VM that waits may be placed at this moment, so its promises stay until it has a node.
    """
    return [
        Release(node_id, vm_id)
        for vm_id, node_id in world.unused
        if vm_id not in world.waiting and (vm_id in world.deleted_vms or world.vm(vm_id) is not None)
    ]


class Placer:
    """Runs placement when the world changes. Up to MOST VMs are placed together."""

    def __init__(
        self, store: EventStore, world: World, policy: Policy, turns: Turns, vault: Vault | None = None
    ) -> None:
        self._vault = vault
        self._preparing: set[asyncio.Future[list[BaseException | None]]] = set()
        self._store = store
        self._world = world
        self._candidates = Candidates(policy)
        self._turns = turns
        self._watch = world.watch()
        self._context = manager("placement")

    def driver(self) -> Driver:
        """One item at a time, because all items change the nodes' reservations, and in the order of creation."""
        return Driver("placement", self._look, watch=self._watch, at_a_time=1)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        """Release the promises that nobody will use, then place VMs that wait."""
        unused = {f"release {one.vm} {one.node}": one for one in releasable(self._world)}
        await self._together(unused, self._release, driver)
        waiting = {vm_id: vm_id for vm_id in candidates(self._world, changes)}
        await self._together(waiting, self._place, driver)

    async def _together(
        self, items: Mapping[str, T], do: Callable[[Sequence[T]], Awaitable[None]], driver: Driver
    ) -> None:
        """Up to MOST items together. If that fails by an error, each becomes an item of its own, and only the one
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
        changes = decisions(waiting, self._world, self._candidates)
        self._prepare_keys(changes)
        if sum(change.tip.ref.kind == "vm" for change in changes) <= FEW:
            await self._promise_first(changes)
        else:
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

    async def _promise_first(self, changes: Sequence[Change]) -> None:
        """Store each promise, and then the event of its VM. Of one node, one promise after the other.

        One that fails does not stop the others. Then raises the first error, an unknown one before those that pass.
        """
        of_vms = {change.tip.ref.id: change for change in changes if change.tip.ref.kind == "vm"}
        placing: list[asyncio.Task[None]] = []

        async def promise(change: Change) -> None:
            tip = change.tip
            for event in change.events:
                (recorded,) = await self._store.append([Change(tip, [event])], self._context)
                self._world.apply(recorded)
                tip = tip.after(recorded)
                if isinstance(event, CapacityReserved):
                    placing.append(asyncio.create_task(self._append([of_vms[event.vm]])))

        promising = [promise(change) for change in changes if change.tip.ref.kind == "node"]
        placed = {event.vm for change in changes for event in change.events if isinstance(event, CapacityReserved)}
        others = [self._append([change]) for id_, change in of_vms.items() if id_ not in placed]
        try:
            errors = await asyncio.gather(*promising, *others, return_exceptions=True)
            errors += await asyncio.gather(*placing, return_exceptions=True)
            heed_cancellation()
        finally:
            await end(placing)
        failures = [error for error in errors if error is not None]
        for error in sorted(failures, key=lambda error: isinstance(error, Conflict | Unavailable)):
            raise error

    async def _append(self, changes: Sequence[Change]) -> None:
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


def decisions(vm_ids: Sequence[str], world: World, candidates: Candidates) -> list[Change]:
    """The changes that place these VMs, those of nodes first. Each decision takes account of the reservations of those
    before it.
    """
    candidates.update(world.nodes())
    reserved: dict[str, list[Event]] = {}
    changes: list[Change] = []
    at, given = now(), set[str]()
    for vm_id in vm_ids:
        loaded = world.vm(vm_id)
        if loaded is None or loaded.state is None:
            continue
        found = loaded.state
        command = drop_of(found, world) or choose(found, candidates, at, world)
        if isinstance(command, ScheduleVm):  # a random address: another process may place a VM at the same time
            address = mac.free(secrets.randbelow(mac.ADDRESSES), lambda one: one in given or world.macs.taken(one))
            command = command.model_copy(update={"mac": address})
        events = vm.decide(found, command)
        if events:
            changes.append(Change(loaded.tip, events))
        if isinstance(command, ScheduleVm) and events:
            given.add(command.mac or "")
            reserve = node.Reserve(node=command.node, vm=vm_id, resources=found.spec.resources(), at=at, again=True)
            for event in node.decide(candidates.node(command.node), reserve):
                reserved.setdefault(command.node, []).append(event)
                if (after := node.evolve(candidates.node(command.node), event)) is not None:
                    candidates.change(after)
    tips = {id_: world.get(Ref(subjects.SYSTEM, "node", id_)).tip for id_ in reserved}
    return [*(Change(tips[id_], of_node) for id_, of_node in reserved.items()), *changes]


def architecture(found: Vm, world: World) -> str | None:
    """The architecture of a VM's image."""
    base = world.image(found.image)
    return base.architecture if base is not None else None


def choose(found: Vm, candidates: Candidates, at: datetime, world: World) -> ScheduleVm | DeferVm:
    """The command that places a VM on the best node, or lets it wait if no node has room."""
    choice = choice_for(found, candidates, world)
    if choice.node is None:
        return DeferVm(vm=found.id, at=at, considered=choice.considered)
    return ScheduleVm(vm=found.id, at=at, node=choice.node, considered=choice.considered)


def choice_for(found: Vm, candidates: Candidates, world: World) -> Placement:
    """The choice for a VM: of nodes with an unused promise to it, if one of them has room. That promise is its room."""
    wish = Wish(found.spec.resources(), found.region, architecture(found, world), features(found))
    promised = [candidates.node(id_) for id_ in world.unused.nodes_of(found.id)]
    if not promised:
        return candidates.place(wish)
    without = [replace(each, reservations=each.reservations.discard(found.id)) for each in promised]
    choice = place(wish.size, wish.region, without, candidates.policy, wish.architecture, wish.features)
    if choice.node is None:
        for each in without:
            candidates.change(each)
        choice = candidates.place(wish)
        for each in promised:
            candidates.change(each)
    return choice


def batched(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))
