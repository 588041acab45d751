"""The world: the state of every aggregate that is not deleted, folded from the log up to a position, in memory."""

import asyncio
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import Any

from nats.aio.client import Client

from domain.base import Event, Rejected
from domain.image import VERIFY_DEADLINE, Image, ImagePhase
from domain.kinds import KINDS
from domain.node import CapacityReleased, CapacityReserved, Node
from domain.project import Project
from domain.tag import Tag
from domain.vm import Phase, Vm
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.follow import follow
from eventstore.log.frontier import Frontier
from eventstore.log.judge import Malformed, Tip, body, follows, shape, step
from eventstore.log.macs import EventKeys
from eventstore.log.store import Loaded
from eventstore.parking.refused import Refused
from handlers.world.aggregates import Aggregates
from handlers.world.backlog import Backlog
from handlers.world.due import Due
from handlers.world.newer import Newer
from handlers.world.references import References
from handlers.world.turns import Turns
from handlers.world.vms import VmIndex
from handlers.world.watch import Watch
from runtime import logs, subjects
from runtime.tasks.tasks import end

log = logs.get(__name__)

#: Seconds without a message after which states are packed, and number of those that are packed each time then. After
#: fewer than SMALL messages at a time, twice as many are packed.
CALM, TIDIED, SMALL = 1.0, 256, 16
#: The kinds to which others can refer.
REFERRED = tuple(kind.name for kind in KINDS.values() if kind.usable is not None)


def verified_until(found: Image) -> datetime | None:
    """When an image that is not verified by then is rejected."""
    return found.updated_at + VERIFY_DEADLINE if found.phase is ImagePhase.VERIFYING else None


def node_of(found: Vm | None) -> str | None:
    """The node of a VM that is not deleted."""
    return found.node if found is not None and found.phase is not Phase.DELETED else None


class World:
    """Folded aggregates by reference. Of a deleted VM only the id is kept."""

    def __init__(self) -> None:
        self.position = 0
        self.newest: Recorded | None = None
        """The message at `position`, if it was read."""
        self.frontier = Frontier((*REFERRED, "token"))
        """The messages that are received, also those that are not folded yet."""
        self.references = References(lambda ref: self.get(ref).state)
        self.aggregates = Aggregates()
        self.vm_index = VmIndex()
        self.deleted_vms = self.vm_index.deleted
        self.forgotten = self.vm_index.forgotten
        self.waiting = self.vm_index.waiting
        self.macs = self.vm_index.macs
        self.due = self.vm_index.due
        self.unused = self.vm_index.unused
        self.unverified = Due()
        """The times at which images count as not readable."""
        self._foreseen: dict[int, tuple[Tip, Loaded[Any]]] = {}
        """The states after events that this process appended and that have not come with the log yet, by position; each
        with the tip before the event."""
        self._ahead = 0
        """The highest position of an event that was applied before it came with the log."""
        self._settling = 0
        """The number of tasks that wait until no aggregate is ahead of the position."""
        self._moved = asyncio.Condition()
        self._awaited = 0
        self._watches: list[Watch] = []
        self.newer = Newer()
        self.malformed = Refused()
        """The messages of the log that were ignored, and why."""
        self.forged = False
        """Whether one of them had no valid MAC, so that another event key might make it an event."""

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, ref: Ref) -> Loaded[Any]:
        """The aggregate as this process knows it. Its state is None if it does not exist, or is a deleted VM."""
        return self.aggregates.get(ref) or Loaded(None, Tip(ref))

    def held(self, ref: Ref) -> Loaded[Any] | None:
        """The aggregate as this process knows it; None for a deleted VM, whose history is only in the log."""
        if ref.kind == "vm" and ref.id in self.deleted_vms:
            forgotten = self.forgotten.get(ref.id)
            return forgotten if forgotten is not None and forgotten.tip.ref == ref else None
        return self.get(ref)

    def vm(self, id_: str) -> Loaded[Vm] | None:
        ref = self.aggregates.of_kind["vm"].get(id_)
        return self.aggregates.get(ref) if ref else None

    def vm_version(self, id_: str) -> int:
        """The version of a VM; 0 if there is none or it is deleted. It costs less than to read its state."""
        ref = self.aggregates.of_kind["vm"].get(id_)
        return self.aggregates.tip(ref)[0] if ref else 0

    def vms(self) -> Iterator[Vm]:
        """All VMs that are not deleted, in the order of their creation. It takes long if there are many."""
        return self.aggregates.states("vm")

    def visible_vms(self, node_id: str) -> frozenset[str]:
        """The ids of the VMs on a node that become lost with it."""
        return frozenset(self.vm_index.visible.get(node_id, ()))

    def nodes(self) -> list[Node]:
        return self._all("node")

    def each_node(self) -> Iterator[Node]:
        """The nodes, one after the other: for who stops at the first that will do. Wait for nothing in between."""
        return self.aggregates.states("node")

    def images(self) -> list[Image]:
        return self._all("image")

    def image(self, id_: str) -> Image | None:
        state: Image | None = self.get(Ref(subjects.SYSTEM, "image", id_)).state
        return state

    def node(self, id_: str) -> Node | None:
        state: Node | None = self.get(Ref(subjects.SYSTEM, "node", id_)).state
        return state

    def lost_node(self, id_: str) -> Tip:
        """The tip of a lost node, for an append that depends on it. Raises Rejected if the node is not lost."""
        loaded: Loaded[Node] = self.get(Ref(subjects.SYSTEM, "node", id_))
        if loaded.state is None or not loaded.state.lost:
            raise Rejected("node_not_lost", f"node {id_} is not lost any more; delete the VM")
        return loaded.tip

    def tag(self, id_: str) -> Tag | None:
        state: Tag | None = self.get(Ref(subjects.SYSTEM, "tag", id_)).state
        return state

    def project(self, id_: str) -> Project | None:
        state: Project | None = self.get(Ref(id_, "project", id_)).state
        return state

    def ids(self, kind: str) -> list[str]:
        """The ids of all resources of a kind that are not deleted."""
        return self.aggregates.ids(kind)

    def projects(self) -> list[Project]:
        return self._all("project")

    def _all(self, kind: str) -> list[Any]:
        return list(self.aggregates.states(kind))

    # ── moving on ───────────────────────────────────────────────────────────────────────────────────────────────

    def apply(self, recorded: Recorded) -> None:
        """Apply an event that a manager appended. If earlier events are still missing here, it comes with the log."""
        tip = self._at(recorded.ref).tip
        if not self._settling and follows(recorded, tip.version, tip.digest) is None:
            self._ahead = max(self._ahead, recorded.position)
            self.take(recorded)

    def foresee(self, recorded: Recorded, before: Tip, after: Loaded[Any]) -> None:
        """Keep the state after an event that this process appended, so that the event need not be folded again."""
        if recorded.position > self.frontier.handed_on:
            self._foreseen[recorded.position] = (before, after)

    def take(self, recorded: Recorded) -> Malformed | None:
        """Apply the next message of the log. Returns why it is malformed, if it is. A repeat changes nothing."""
        wrong = self._take(recorded)
        if wrong is not None and wrong.code in ("forged", "no_mac"):
            self.forged = True
        return wrong

    def _take(self, recorded: Recorded) -> Malformed | None:
        ref = recorded.ref
        before, foreseen = self._foreseen.pop(recorded.position, (None, None))
        known = self._at(ref)
        deleted = ref.kind == "vm" and not self.aggregates.is_there(ref) and self.vm_index.is_deleted(ref.id)
        if ref.kind not in KINDS or deleted or recorded.position <= known.tip.position:
            return shape(recorded)
        wrong: Malformed | None = None
        if foreseen is not None and recorded.ours and known.tip == before and isinstance(body(recorded), Event):
            loaded = foreseen
        else:
            state, tip, wrong = step(KINDS[ref.kind].evolve, known.state, known.tip, recorded)
            loaded = Loaded(state, tip)
        ref = self._keep(ref, loaded, known.state)
        if wrong is None:
            self.references.update(ref, recorded, known.state, loaded.state)
            self._check_promises(ref, recorded.event, known.state, loaded.state)
            self.newer.note(recorded)
        for watch in self._watches:
            watch.add(ref)
        return wrong

    def _check_promises(self, ref: Ref, event: Event, before: Any, after: Any) -> None:
        """Note which promises an event has made, ended or left unused."""
        if isinstance(event, CapacityReserved | CapacityReleased):
            self._check_promise(event.vm, ref.id)
        elif ref.kind == "vm":
            old, new = node_of(before), node_of(after)
            for node_id in {old, new} - {None} if old != new else ():
                self._check_promise(ref.id, str(node_id))

    def _check_promise(self, vm_id: str, node_id: str) -> None:
        found = self.node(node_id)
        promised = found is not None and vm_id in found.reservations
        loaded = self.vm(vm_id) if promised else None
        self.unused.set(vm_id, node_id, promised and (loaded is None or node_of(loaded.state) != node_id))

    def _at(self, ref: Ref) -> Loaded[Any]:
        """The aggregate as this process knows it, also a forgotten VM."""
        forgotten = self.forgotten.get(ref.id) if ref.kind == "vm" else None
        return forgotten if forgotten is not None and forgotten.tip.ref == ref else self.get(ref)

    def _keep(self, ref: Ref, loaded: Loaded[Any], before: Any = None) -> Ref:
        """Keep an aggregate, and what is derived from it. `before`: its state before that.

        Returns the one object for its reference that everybody should keep.
        """
        state = loaded.state
        if isinstance(state, Vm) and state.phase is Phase.DELETED:
            self.aggregates.remove(ref)
            self.vm_index.remove(ref, before, loaded)
            return ref
        ref = self.aggregates.put(loaded)
        if isinstance(state, Vm):
            self.vm_index.change(ref, before, state)
        elif isinstance(state, Image):
            self.unverified.set(ref.id, verified_until(state))
        return ref

    def watch(self, kinds: Collection[str] = tuple(KINDS)) -> Watch:
        """A new watch, which collects the changes of these kinds for a manager."""
        watch = Watch(kinds)
        self._watches.append(watch)
        return watch

    def nudge(self) -> None:
        """Wake all managers whose watches have changes."""
        for watch in self._watches:
            watch.nudge()

    async def follow(self, nc: Client, turns: Turns, event_keys: EventKeys | None = None) -> None:
        """Follow the log, for ever. Messages are received immediately. They are folded a moment later while many
        commands are in flight that do not wait for them.
        """
        backlog = Backlog()
        tasks = [
            asyncio.create_task(self._receive(nc, backlog, event_keys)),
            asyncio.create_task(self._fold(backlog, turns)),
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(tasks)
        for task in ended:
            task.result()

    async def _receive(self, nc: Client, backlog: Backlog, event_keys: EventKeys | None) -> None:
        async for batch in follow(nc, self.position, event_keys=event_keys, own_events=self.frontier):
            self.frontier.add_read(batch)
            await backlog.put(batch)

    async def _fold(self, backlog: Backlog, turns: Turns) -> None:
        while True:
            while self.aggregates.crowded and not await backlog.wait(CALM):
                self.aggregates.tidy(TIDIED)
            await backlog.wait()
            await turns.wait(needed=lambda: self._awaited > 0 or backlog.full())
            batch = self.frontier.hand_on(backlog.take())
            for recorded in batch:
                wrong = self.take(recorded)
                if wrong is not None:
                    self.malformed.put(recorded, wrong.reason)
            async with self._moved:
                self.newest = batch[-1]
                self.position = self.newest.position
                self._moved.notify_all()
            self.nudge()
            if len(batch) < SMALL:
                self.aggregates.tidy(2 * len(batch))
            await asyncio.sleep(0)  # let other tasks run, however long the backlog is

    async def reached(self, position: int) -> None:
        """Wait until everything up to a position is folded."""
        if self.position < position:
            await self.until(lambda: self.position >= position)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds. It is tested after each batch of events."""
        self._awaited += 1
        self.frontier.urge()
        try:
            async with self._moved:
                await self._moved.wait_for(holds)
        finally:
            self._awaited -= 1

    async def settled(self) -> None:
        """Wait until no aggregate is ahead of the position. That is so until the caller waits for something else."""
        self._settling += 1
        try:
            await self.until(lambda: self._ahead <= self.position)
        finally:
            self._settling -= 1

    def restored(self, position: int) -> None:
        """All aggregates were filled in. Compute what is derived from few of them; the log is read from `position`."""
        for image in self.images():
            self.unverified.set(image.id, verified_until(image))
        tips = ((ref, self.aggregates.tip(ref)[1]) for ref in self.aggregates.of_kinds(self.frontier.kinds))
        self.frontier.begin(position, tips)
        self.position = position
