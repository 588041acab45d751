"""Append to the log, load one aggregate, read a range.

Every append names what it expects the aggregate's last position to be; the server compares and stores in one step.
`jetstream.py` does this, and finds out what became of an append with an unknown outcome.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Generic, TypeVar

from nats.aio.client import Client

from domain.base import Event, ReferenceChecked
from eventstore.log.envelope import GENESIS, Context, Recorded, Ref, appended, digest, seal
from eventstore.log.frontier import Frontier
from eventstore.log.group import GroupCommit
from eventstore.log.jetstream import (
    PAGE,
    Conflict,
    Message,
    Stream,
    TooLarge,
    TooMany,
    Unavailable,
)
from eventstore.log.judge import Malformed, Tip, evolved, judge_after
from eventstore.log.received import EXPECTED, EXPECTED_ON
from runtime import subjects

__all__ = [
    "PAGE",
    "Change",
    "Conflict",
    "EventStore",
    "Loaded",
    "Tampered",
    "Tip",
    "TooLarge",
    "TooMany",
    "Unavailable",
    "not_behind",
]

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """An aggregate's state and the tip that an append has to build on."""

    state: S | None
    tip: Tip


@dataclass(frozen=True, slots=True)
class Change:
    """Events to append to one aggregate, in order, on top of a tip.

    `alone` widens what an aggregate's first event expects: the tip's position is that of the last message on any
    subject that matches this filter (0: there is none).
    """

    tip: Tip
    events: Sequence[Event]
    alone: str | None = None


def with_checks(changes: Sequence[Change], unchanged: Sequence[Tip]) -> list[Change]:
    """The changes that have events, with a message more for each expectation that would find none."""
    written = [change for change in changes if change.events]
    if not unchanged:
        return written
    spare = sum(len(change.events) - 1 for change in written)
    checks = [
        ReferenceChecked(project=tip.ref.project, kind=tip.ref.kind, id=tip.ref.id, position=tip.position)
        for tip in unchanged[spare:]
    ]
    if written and checks:
        first = written[0]
        written[0] = Change(first.tip, [*first.events, *checks], first.alone)
    return written


class Tampered(Exception):
    """An aggregate's history is not what was appended. `position` is the first event that does not fit."""

    def __init__(self, recorded: Recorded, what: str) -> None:
        super().__init__(f"position {recorded.position} ({recorded.subject}): {what}")
        self.position = recorded.position


def not_behind(recorded: Recorded, at: int | datetime) -> bool:
    """Whether an event stands at or before a position, or was decided by that time."""
    return recorded.position <= at if isinstance(at, int) else recorded.moment <= at


def events_of(ref: Ref, messages: Iterable[Recorded], *, verified: bool = False) -> tuple[list[Recorded], Tip]:
    """The events among all messages of one subject, in order, and the tip behind them: malformed ones are left out.

    `verified`: the first malformed one raises Tampered instead.
    """
    events: list[Recorded] = []
    version, previous, position = 0, GENESIS, 0
    for recorded in messages:
        verdict = judge_after(recorded, version, previous)
        if not isinstance(verdict, Malformed):
            events.append(recorded)
            version, previous = version + 1, recorded.digest
        elif verified:
            raise Tampered(recorded, verdict.reason)
        position = recorded.position
    return events, Tip(ref, version, position, previous, events[-1].time if events else None)


def begun(messages: Iterable[Recorded]) -> Recorded | None:
    """The first of these messages that is the first event of an aggregate."""
    for recorded in messages:
        if isinstance(judge_after(recorded, 0, GENESIS), Event):
            return recorded
    return None


class EventStore:
    """The log of one cloud, through one connection."""

    def __init__(
        self, nc: Client, *, stream: str = subjects.EVENTS, timeout: float = 5.0, frontier: Frontier | None = None
    ) -> None:
        self._log = Stream(nc, stream, timeout=timeout)
        self._group = GroupCommit(self._log)
        self._frontier = frontier

    # ── append ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(
        self, changes: Sequence[Change], context: Context, *, unchanged: Sequence[Tip] = ()
    ) -> list[Recorded]:
        """Append all events of all changes, or none; return them as they stand in the log.

        One event is one publish, several are one atomic batch; appends that come at the same time may share a batch.
        `unchanged`: the tips of other aggregates that have to be the newest still. A message can carry one
        expectation, and the first of each aggregate carries its own: so these go with later messages, and where there
        is none, a `ReferenceChecked` is added to the first change's events. Raises Conflict when any of the
        aggregates has moved on, Unavailable when the outcome could not be learned in time.
        """
        expected = list(unchanged)
        messages: list[Message] = []
        sealed: list[tuple[Ref, dict[str, str], Event]] = []
        for change in with_checks(changes, unchanged):
            version, previous = change.tip.version, change.tip.digest
            subject = change.tip.ref.subject
            for index, event in enumerate(change.events):
                version += 1
                headers, body = seal(change.tip.ref, version, previous, event, context)
                if index + 1 < len(change.events):
                    previous = digest(subject, headers, body)
                sealed.append((change.tip.ref, headers, event))
                sent = {**headers, "Nats-Msg-Id": headers["ce-id"], "Nats-Expected-Stream": self._log.name}
                if index == 0:
                    sent[EXPECTED] = str(change.tip.position)
                    if change.alone is not None:
                        sent[EXPECTED_ON] = change.alone
                elif expected:
                    tip = expected.pop(0)
                    sent[EXPECTED] = str(tip.position)
                    sent[EXPECTED_ON] = tip.ref.subject
                messages.append(Message(subject, sent, body))
        if not messages:
            return []
        last = await self._group.append(messages)
        first = last - len(messages) + 1
        recorded = [
            appended(first + i, ref, headers, message.body, event)
            for i, (message, (ref, headers, event)) in enumerate(zip(messages, sealed, strict=True))
        ]
        if self._frontier is not None:
            self._frontier.stored(recorded)
        return recorded

    # ── read ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def history(
        self, ref: Ref, *, at: int | datetime | None = None, fresh: bool = False, verified: bool = False
    ) -> list[Recorded]:
        """All events of one aggregate in order; `at` ends it with the last one up to that position or time.

        Malformed messages are left out. `fresh`: with several replicas any of them may answer, one that lags too; the
        leader is asked then where the history ends. `verified`: there are none, every version follows, and every event
        carries the digest of the one before it; else Tampered names the first that does not. Raises Unavailable when
        the log does not answer.
        """
        events, _ = await self._history(ref, fresh=fresh, verified=verified)
        return events if at is None else list(takewhile(lambda recorded: not_behind(recorded, at), events))

    async def _history(self, ref: Ref, *, fresh: bool, verified: bool) -> tuple[list[Recorded], Tip]:
        last = await self._log.last_of(ref.subject) if fresh else None
        messages = await self._log.read(0, ref.subject, at_least=last.position if last else 0)
        return events_of(ref, messages, verified=verified)

    async def load(
        self,
        ref: Ref,
        evolve: Callable[[S | None, Event], S | None],
        *,
        at: int | datetime | None = None,
        fresh: bool = False,
        verified: bool = False,
    ) -> Loaded[S]:
        """Fold one aggregate; the rest as in `history`."""
        state: S | None = None
        events, end = await self._history(ref, fresh=fresh, verified=verified)
        newest: Recorded | None = None
        for recorded in events:
            if at is not None and not not_behind(recorded, at):
                return Loaded(state, Tip(ref) if newest is None else Tip(ref).after(newest))
            state, _ = evolved(evolve, state, recorded.event)
            newest = recorded
        return Loaded(state, end)

    async def first(self, filter_: str) -> tuple[Recorded | None, int]:
        """The first event on any subject that matches, if there is one; and the position of the last message there."""
        last = await self._log.last_of(filter_)
        if last is None:
            return None, 0
        page, _ = await self._log.page(0, filter_)
        found = begun(page) or begun(await self._log.read(0, filter_, at_least=last.position))
        return found, last.position

    async def unused(self, filter_: str) -> int | None:
        """The position of the last message on any subject that matches, where none of them is an event; else None.

        That is what an append expects that begins an aggregate where malformed messages stand.
        """
        first, last = await self.first(filter_)
        return last if first is None else None

    async def read(self, after: int, filter_: str | None = None, limit: int = PAGE) -> list[Recorded]:
        """Up to `limit` messages behind position `after`, in order, whose subject matches the filter, unjudged."""
        page, _ = await self._log.page(after, filter_ or subjects.events(), limit)
        return page

    async def between(self, after: int, last: int) -> list[Recorded]:
        """All events behind a position up to another one that is known to be stored, and perhaps some more."""
        return await self._log.read(after, subjects.events(), at_least=last)

    async def newest(self, filter_: str | None = None) -> Recorded | None:
        """The newest event whose subject matches the filter, as the log's leader knows it."""
        return await self._log.last_of(filter_ or subjects.events())

    async def next_position(self, after: int) -> int | None:
        """The first position behind another one at which a message stands, as the log's leader knows it."""
        found = await self._log.next_of(">", after)
        return found.position if found is not None else None

    async def last_position(self) -> int:
        """The position of the newest event of the whole log (0 when it is empty)."""
        return await self._log.last_position()
