"""The world as the log tells it up to a position: every living aggregate, folded, in memory."""

import asyncio
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nats.aio.client import Client

from domain.base import Event, Rejected
from domain.image import Image
from domain.kinds import KINDS
from domain.node import Node
from domain.project import Project
from domain.tag import Tag
from domain.vm import WAITING, Phase, Vm
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.follow import follow
from eventstore.log.frontier import Frontier
from eventstore.log.judge import Malformed, Tip, body, follows, shape, step
from eventstore.log.store import Loaded
from eventstore.parking.refused import Refused
from handlers.world.backlog import Backlog
from handlers.world.due import Due
from handlers.world.macs import Macs
from handlers.world.references import References
from handlers.world.turns import Turns
from runtime import logs, subjects
from runtime.tasks.tasks import end

log = logs.get(__name__)

#: The kinds that others refer to.
REFERRED = tuple(kind.name for kind in KINDS.values() if kind.usable is not None)


class Watch:
    """What has changed, of these kinds of aggregate, since a manager last looked. At first: everything.

    While a manager has to look at everything anyway, single changes are not kept: one that stands by costs nothing.
    """

    def __init__(self, kinds: Collection[str] = tuple(KINDS)) -> None:
        self._kinds = kinds
        self._bell = asyncio.Event()
        self._changed: set[Ref] = set()
        self._all = True
        self._bell.set()

    def add(self, ref: Ref) -> None:
        if not self._all and ref.kind in self._kinds:
            self._changed.add(ref)

    def forget(self, ref: Ref) -> None:
        """Whoever watches made the newest change itself, knowing all before it."""
        self._changed.discard(ref)

    def ring(self, *, everything: bool = False) -> None:
        self._all = self._all or everything
        self._bell.set()

    def nudge(self) -> None:
        """Wake the manager, where there is something for it."""
        if self._changed:
            self._bell.set()

    async def next(self) -> "Changes":
        """Wait for the next change, and take all there are."""
        await self._bell.wait()
        self._bell.clear()
        taken = Changes(frozenset(self._changed), self._all)
        self._changed = set()
        self._all = False
        return taken


@dataclass(frozen=True)
class Changes:
    """The aggregates that changed; `everything` when a manager has to look at the whole world."""

    refs: frozenset[Ref]
    everything: bool

    def of(self, kind: str) -> list[str]:
        return [ref.id for ref in self.refs if ref.kind == kind]


def next_time(found: Vm) -> datetime | None:
    """The first time at which something is to be done about a VM, whatever happens."""
    times = [found.pending.deadline if found.pending else None, found.restart_at]
    return min((time for time in times if time is not None), default=None)


class World:
    """Folded aggregates by reference. Deleted VMs are remembered by id alone."""

    def __init__(self) -> None:
        self.position = 0
        self.frontier = Frontier(REFERRED)
        """What is known of the log already, before it is folded."""
        self.references = References(lambda ref: self.get(ref).state)
        self.deleted_vms: set[str] = set()
        self.forgotten: dict[str, Loaded[Vm]] = {}
        """Of the deleted VMs those that their node, lost when they were forgotten, has yet to let go of."""
        self._known: dict[Ref, Loaded[Any]] = {}
        self._by_kind: dict[str, dict[str, Ref]] = {kind: {} for kind in KINDS}
        self._foreseen: dict[int, tuple[Tip, Loaded[Any]]] = {}
        """By position, what own events lead to that have yet to come with the log: from which tip, and to what."""
        self._moved = asyncio.Condition()
        self._awaited = 0
        self._watches: list[Watch] = []
        self.malformed = Refused()
        """The messages of the log that were not taken in, and why."""
        self.waiting: dict[str, None] = {}
        """The VMs without a node, in the order of their creation."""
        self.macs = Macs()
        """The MAC addresses of the VMs that are not gone; of a forgotten one, until its node has let go of it."""
        self.due = Due()
        """The VMs of which something pending ends, or that are to start again by themselves."""

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, ref: Ref) -> Loaded[Any]:
        """The aggregate as it is known here; its state is None when there is none (or it is a deleted VM)."""
        return self._known.get(ref) or Loaded(None, Tip(ref))

    def held(self, ref: Ref) -> Loaded[Any] | None:
        """The aggregate as it is known here; None for a deleted VM, whose history is in the log alone."""
        if ref.kind == "vm" and ref.id in self.deleted_vms:
            grave = self.forgotten.get(ref.id)
            return grave if grave is not None and grave.tip.ref == ref else None
        return self.get(ref)

    def vm(self, id_: str) -> Loaded[Vm] | None:
        ref = self._by_kind["vm"].get(id_)
        return self._known[ref] if ref else None

    def vms(self) -> Iterator[Vm]:
        """All VMs that are not deleted, in the order of their creation."""
        for ref in list(self._by_kind["vm"].values()):
            known = self._known.get(ref)
            if known is not None and known.state is not None:
                yield known.state

    def nodes(self) -> list[Node]:
        return self._all("node")

    def images(self) -> list[Image]:
        return self._all("image")

    def image(self, id_: str) -> Image | None:
        state: Image | None = self.get(Ref(subjects.SYSTEM, "image", id_)).state
        return state

    def node(self, id_: str) -> Node | None:
        state: Node | None = self.get(Ref(subjects.SYSTEM, "node", id_)).state
        return state

    def lost_node(self, id_: str) -> Tip:
        """Where a node stands that is lost, for an append that depends on it. Raises Rejected when it is not lost."""
        books: Loaded[Node] = self.get(Ref(subjects.SYSTEM, "node", id_))
        if books.state is None or not books.state.lost:
            raise Rejected("node_not_lost", f"node {id_} is not lost any more; delete the VM")
        return books.tip

    def tag(self, id_: str) -> Tag | None:
        state: Tag | None = self.get(Ref(subjects.SYSTEM, "tag", id_)).state
        return state

    def project(self, id_: str) -> Project | None:
        state: Project | None = self.get(Ref(id_, "project", id_)).state
        return state

    def projects(self) -> list[Project]:
        return self._all("project")

    def _all(self, kind: str) -> list[Any]:
        return [self._known[ref].state for ref in self._by_kind[kind].values()]

    # ── moving on ───────────────────────────────────────────────────────────────────────────────────────────────

    def apply(self, recorded: Recorded) -> None:
        """Take in what a manager appended itself. What does not follow here comes with the log, in its order."""
        tip = self._at(recorded.ref).tip
        if follows(recorded, tip.version, tip.digest) is None:
            self.take(recorded)

    def foresee(self, recorded: Recorded, before: Tip, after: Loaded[Any]) -> None:
        """Take note of what an event that this process appended makes of its aggregate: it is not folded again."""
        if recorded.position > self.frontier.handed_on:
            self._foreseen[recorded.position] = (before, after)

    def take(self, recorded: Recorded) -> Malformed | None:
        """Take in the next message of the log; what is wrong with it. One that is in already changes nothing."""
        ref = recorded.ref
        before, foreseen = self._foreseen.pop(recorded.position, (None, None))
        known = self._at(ref)
        over = ref.kind == "vm" and ref.id in self.deleted_vms and ref.id not in self.forgotten
        if ref.kind not in KINDS or over or recorded.position <= known.tip.position:
            return shape(recorded)
        wrong: Malformed | None = None
        if foreseen is not None and recorded.ours and known.tip == before and isinstance(body(recorded), Event):
            loaded = foreseen
        else:
            state, tip, wrong = step(KINDS[ref.kind].evolve, known.state, known.tip, recorded)
            loaded = Loaded(state, tip)
        state = loaded.state
        if ref.kind == "vm" and state is not None and state.phase is Phase.DELETED:
            self._bury(ref, loaded)
        else:
            self._keep(ref, loaded)
        if wrong is None:
            self.references.moved(recorded, known.state, state)
        for watch in self._watches:
            watch.add(ref)
        return wrong

    def _at(self, ref: Ref) -> Loaded[Any]:
        """What is known of an aggregate, one that is only waiting for its lost node as well."""
        grave = self.forgotten.get(ref.id) if ref.kind == "vm" else None
        return grave if grave is not None and grave.tip.ref == ref else self.get(ref)

    def _keep(self, ref: Ref, loaded: Loaded[Any]) -> None:
        self._known[ref] = loaded
        if loaded.state is None:  # malformed messages only, so far
            return
        self._by_kind[ref.kind][ref.id] = ref
        if ref.kind == "vm" and loaded.state.phase in WAITING:
            self.waiting[ref.id] = None
        elif ref.kind == "vm":
            self.waiting.pop(ref.id, None)
        if ref.kind == "vm":
            self.due.set(ref.id, next_time(loaded.state))
            self.macs.keep(loaded.state)

    def _bury(self, ref: Ref, loaded: Loaded[Vm]) -> None:
        self.deleted_vms.add(ref.id)
        self._known.pop(ref, None)
        self._by_kind["vm"].pop(ref.id, None)
        self.due.set(ref.id, None)
        self.waiting.pop(ref.id, None)
        if loaded.state is not None and loaded.state.forgotten is not None and not loaded.state.cleared:
            self.forgotten[ref.id] = loaded
        else:
            self.forgotten.pop(ref.id, None)
            self.macs.drop(ref.id)

    def watch(self, kinds: Collection[str] = tuple(KINDS)) -> Watch:
        """A manager's own view of what has changed, of these kinds."""
        made = Watch(kinds)
        self._watches.append(made)
        return made

    def nudge(self) -> None:
        """Make all managers look for which something has changed."""
        for watch in self._watches:
            watch.nudge()

    async def follow(self, nc: Client, turns: Turns) -> None:
        """Keep up with the log, for ever: what it holds is known at once, and folded a moment later while many commands
        come that need nothing of it.
        """
        backlog = Backlog()
        tasks = [asyncio.create_task(self._hear(nc, backlog)), asyncio.create_task(self._fold(backlog, turns))]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(tasks)
        for task in ended:
            task.result()

    async def _hear(self, nc: Client, backlog: Backlog) -> None:
        async for heard in follow(nc, self.position):
            self.frontier.heard(heard)
            await backlog.put(heard)

    async def _fold(self, backlog: Backlog, turns: Turns) -> None:
        while True:
            await backlog.wait()
            await turns.wait(needed=lambda: self._awaited > 0 or backlog.full())
            batch = self.frontier.handed(backlog.take())
            for recorded in batch:
                wrong = self.take(recorded)
                if wrong is not None:
                    self.malformed.put(recorded, wrong.reason)
            async with self._moved:
                self.position = batch[-1].position
                self._moved.notify_all()
            self.nudge()
            await asyncio.sleep(0)  # others have their turn, however much there is

    async def reached(self, position: int) -> None:
        """Wait until everything up to a position is in."""
        if self.position < position:
            await self.until(lambda: self.position >= position)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; it is looked at whenever events came in."""
        self._awaited += 1
        try:
            async with self._moved:
                await self._moved.wait_for(holds)
        finally:
            self._awaited -= 1
