"""The accounts, tokens and members of projects, as the log has them: followed in memory, from the first event.

Who a caller is must not depend on read models that may be behind. So each gateway folds these few kinds itself, and
asks the log's leader every second for their newest events. While it is not sure that it has read all of them, it knows
nobody: `judge` raises, and everything that is open with a token of the log ends.

Each kind is read by itself, because nothing depends on the order of events of two aggregates: the gateway may read the
log only in pages of one filter, and one filter for all kinds would read the whole log.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.errors import Error as NatsError

from domain.access import Grant, Role
from domain.account import Account
from domain.kind import Kind
from domain.kinds import KINDS
from domain.project import PROJECT, Project
from domain.references import ACCOUNTS, account_of
from domain.token import TOKEN, Token
from eventstore.log.envelope import Recorded
from eventstore.log.follow import OtherStream, follow
from eventstore.log.judge import Tip, step
from eventstore.log.store import EventStore, Unavailable
from gateway.http.problems import Problem
from projections.database import Begins
from runtime import logs, subjects
from runtime.tasks.tasks import end, heed_cancellation

log = logs.get(__name__)

S = TypeVar("S")

#: Seconds between two questions to the log's leader.
LOOK_AGAIN = 1.0
#: The kinds that say who may do what.
FOLLOWED: tuple[Kind[Any, Any], ...] = (*(KINDS[kind] for kind in ACCOUNTS.values()), TOKEN, PROJECT)
FILTERS = {kind.name: subjects.events(kind=kind.name) for kind in FOLLOWED}


@dataclass
class Folded:
    """What is known of one aggregate."""

    tip: Tip
    state: Any = None


@dataclass
class Directory:
    """Accounts, tokens and members. `patience`: seconds for which it is trusted after it was last complete.

    `changed` is set whenever an identity may have changed. `clock`: seconds, by a monotonic clock.
    """

    nc: Client
    store: EventStore
    patience: float
    changed: asyncio.Event
    clock: Callable[[], float] = time.monotonic
    #: grows with each event, so that what is derived can be kept
    version: int = 0
    #: the last event that was read, by kind
    _positions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FILTERS, 0))
    _complete_at: float | None = None
    _folded: dict[tuple[str, str], Folded] = field(default_factory=dict)
    _members: dict[str, dict[str, Role]] = field(default_factory=dict)
    _begins: dict[str, int] = field(default_factory=dict)
    _read: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def behind(self) -> float | None:
        """Seconds since it was last sure to have read everything; None if it never was."""
        return None if self._complete_at is None else max(0.0, self.clock() - self._complete_at)

    @property
    def projects(self) -> int:
        """The position of the last event of a project that it has read."""
        return self._positions[PROJECT.name]

    def judge(self) -> None:
        """Raises Problem (503) while it cannot be sure to have read everything."""
        behind = self.behind
        if behind is None or behind > self.patience:
            since = "since this gateway started" if behind is None else f"for {behind:.0f} s"
            detail = f"whether this token is still valid cannot be known: the log could not be read {since}; try again"
            raise Problem(503, "identity_unavailable", detail)

    def token(self, id_: str) -> Token | None:
        found = self._state(TOKEN.name, id_)
        return found if isinstance(found, Token) else None

    def account(self, principal: str) -> Account | None:
        """The user or service account that a principal is."""
        named = account_of(principal)
        found = self._state(named.kind, named.id) if named is not None else None
        return found if isinstance(found, Account) else None

    def members(self, principal: str) -> Mapping[str, Role]:
        """The roles of a principal by project."""
        return self._members.get(principal, {})

    def bindings(self, principal: str) -> frozenset[Grant]:
        """What a principal is granted by the members of projects. Raises Problem (503) if that is not known now."""
        self.judge()
        return frozenset(Grant(role, project) for project, role in self.members(principal).items())

    def begins(self, projects: Iterable[str]) -> Begins:
        """Those of these projects that were deleted and created again, with the position of that.

        Raises Problem (503) while that was never known.
        """
        if self._complete_at is None:
            self.judge()
        return {project: self._begins[project] for project in projects if project in self._begins}

    def begin(self, project: str) -> int:
        """The position at which a project was created again; 0 if it was not."""
        return self._begins.get(project, 0)

    def _state(self, kind: str, id_: str) -> object:
        found = self._folded.get((kind, id_))
        return found.state if found is not None else None

    async def run(self) -> None:
        """Follow the log, and ask how far it is, for ever."""
        asking = asyncio.create_task(self._ask())
        try:
            while True:
                following = [asyncio.create_task(self._follow(kind)) for kind in FILTERS]
                try:
                    await asyncio.gather(*following)
                except OtherStream as error:
                    log.error("the log was lost or replaced; it is read again from the start", error=str(error))
                finally:
                    await end(following)
                self._forget()
        finally:
            await end([asking])

    async def _follow(self, kind: str) -> None:
        """Follow the events of one kind, for ever. Raises OtherStream."""
        batches = follow(self.nc, self._positions[kind], [FILTERS[kind]], event_keys=self.store.event_keys)
        async with contextlib.aclosing(batches):
            async for batch in batches:
                for recorded in batch:
                    self.apply(recorded)
                    self._positions[kind] = recorded.position
                    self._read.set()

    def apply(self, recorded: Recorded) -> None:
        """Fold one message. A malformed one changes nothing."""
        try:
            ref = recorded.ref
            kind = next(kind for kind in FOLLOWED if kind.name == ref.kind)
        except (ValueError, StopIteration):
            return
        known = self._folded.get((ref.kind, ref.id)) or Folded(Tip(ref))
        state, tip, wrong = step(kind.evolve, known.state, known.tip, recorded)
        if wrong is not None:
            log.warning("an event is malformed and ignored", position=recorded.position, reason=wrong.reason)
        if kind is PROJECT:
            self._note_members(ref.id, known.state, state)
            if isinstance(state, Project) and not state.deleted and known.state is not None and known.state.deleted:
                self._begins[ref.id] = recorded.position
        self._folded[ref.kind, ref.id] = Folded(tip, state)
        self.version += 1
        self.changed.set()

    def _note_members(self, project: str, before: object, after: object) -> None:
        for principal in members_of(before).keys() - members_of(after).keys():
            roles = self._members[principal]
            del roles[project]
            if not roles:
                del self._members[principal]
        for principal, role in members_of(after).items():
            self._members.setdefault(principal, {})[project] = role

    def _forget(self) -> None:
        self._folded.clear()
        self._members.clear()
        self._begins.clear()
        self._positions, self._complete_at = dict.fromkeys(FILTERS, 0), None
        self.version += 1
        self.changed.set()

    async def _ask(self) -> None:
        """Ask the log's leader every second for the newest events, and wait until they are read. For ever."""
        while True:
            began = self.clock()
            try:
                async with asyncio.timeout(self.patience):
                    await self.reach_end()
                self._complete_at = began
            except (Unavailable, NatsError, OSError, TimeoutError) as error:
                log.warning("whether all accounts and tokens are known is not sure", error=repr(error))
            heed_cancellation()
            await asyncio.sleep(max(0.0, LOOK_AGAIN - (self.clock() - began)))

    async def reach_end(self) -> None:
        """Ask the log's leader for the newest event of each kind, and wait until it is read. Raises as the log."""
        newest = await asyncio.gather(*map(self.store.newest, FILTERS.values()))
        for kind, found in zip(FILTERS, newest, strict=True):
            while found is not None and self._positions[kind] < found.position:
                self._read.clear()
                await self._read.wait()


def members_of(state: object) -> Mapping[str, Role]:
    """The members of a project; nobody if it is deleted."""
    return state.members if isinstance(state, Project) and not state.deleted else {}
