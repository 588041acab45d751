"""Append to the log, load one aggregate, read a range.

Each append states the expected last position of the aggregate; the server compares and stores in one step.
`jetstream.py` does this, and resolves an unknown outcome.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Generic, TypeVar

from nats.aio.client import Client

from domain.base import Event, ReferenceChecked
from eventstore.log.digest import digest
from eventstore.log.envelope import GENESIS, Context, Recorded, Ref, appended, seal
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
from eventstore.log.macs import MAC, EventKeys
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
    "is_up_to",
]

S = TypeVar("S")

#: The filter for all messages of the log: the server need not look through its subjects (`runtime/bus/reading.py`).
EVERYTHING = ">"


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """An aggregate's state, and the tip that an append has to follow."""

    state: S | None
    tip: Tip


@dataclass(frozen=True, slots=True)
class Change:
    """Events to append to one aggregate, in order, after a tip.

    `alone`: a filter, for the first event of an aggregate. The tip's position has to be that of the last message on any
    subject that matches it (0: there is none), so that no other aggregate with such a subject exists.
    """

    tip: Tip
    events: Sequence[Event]
    alone: str | None = None


def with_checks(changes: Sequence[Change], unchanged: Sequence[Tip]) -> list[Change]:
    """The changes that have events, with a `ReferenceChecked` event added for each expectation that no other event can
    carry.
    """
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
    """An aggregate's history was changed. `position`: the first message that is not valid there."""

    def __init__(self, recorded: Recorded, what: str) -> None:
        super().__init__(f"position {recorded.position} ({recorded.subject}): {what}")
        self.position = recorded.position


def is_up_to(recorded: Recorded, at: int | datetime) -> bool:
    """Whether an event is at or before a position, or was decided at or before a time."""
    return recorded.position <= at if isinstance(at, int) else recorded.moment <= at


def events_of(ref: Ref, messages: Iterable[Recorded], *, verified: bool = False) -> tuple[list[Recorded], Tip]:
    """The events among all messages of one subject, in order, and the tip after them. Malformed messages are left out;
    with `verified`, the first one raises Tampered.
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


def first_event(messages: Iterable[Recorded]) -> Recorded | None:
    """The first of these messages that is the first event of an aggregate; None if there is none."""
    for recorded in messages:
        if isinstance(judge_after(recorded, 0, GENESIS), Event):
            return recorded
    return None


class EventStore:
    """The log of one cloud, through one connection.

    `event_keys`: signs the events that are appended, and checks those that are read; None: neither of the two. `guard`:
    called before each append with the aggregates that it depends on; what it raises refuses the append.
    """

    def __init__(
        self,
        nc: Client,
        event_keys: EventKeys | None = None,
        *,
        stream: str = subjects.EVENTS,
        timeout: float = 5.0,
        frontier: Frontier | None = None,
        guard: Callable[[Iterable[Ref]], None] | None = None,
    ) -> None:
        self.event_keys = event_keys
        self._log = Stream(nc, stream, timeout=timeout, event_keys=event_keys)
        self._group = GroupCommit(self._log)
        self._frontier = frontier
        self._guard = guard

    # ── append ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(
        self, changes: Sequence[Change], context: Context, *, unchanged: Sequence[Tip] = ()
    ) -> list[Recorded]:
        """Append all events of all changes, or none. Returns the stored messages.

        One event is one publish, several are one atomic batch; concurrent appends may share a batch. `unchanged`: tips
        of other aggregates that must still be their newest. A message can carry one expectation, and the first message
        of each aggregate carries its own. So these go with later messages; if there are not enough, `ReferenceChecked`
        events are added to the first change. Raises Conflict if an aggregate has another tip now, Unavailable if the
        outcome is unknown within the timeout.
        """
        if self._guard is not None:
            self._guard([*(change.tip.ref for change in changes), *(tip.ref for tip in unchanged)])
        keys = self.event_keys
        expected = list(unchanged)
        messages: list[Message] = []
        sealed: list[tuple[Ref, dict[str, str], Event, str | None]] = []
        for change in with_checks(changes, unchanged):
            ref, version, previous = change.tip.ref, change.tip.version, change.tip.digest
            subject = ref.subject
            last_index = len(change.events) - 1
            for index, event in enumerate(change.events):
                version += 1
                headers, body = seal(ref, version, previous, event, context)
                its_digest: str | None = None
                if keys is not None or index < last_index:
                    previous = its_digest = digest(subject, headers, body)
                id_ = headers["ce-id"]
                if keys is not None:
                    # The MAC is also the id by which the server finds repeats. Nobody else can use it up in advance.
                    id_ = headers[MAC] = keys.mac(previous)
                sent = {**headers, "Nats-Msg-Id": id_, "Nats-Expected-Stream": self._log.name}
                if index == 0:
                    sent[EXPECTED] = str(change.tip.position)
                    if change.alone is not None:
                        sent[EXPECTED_ON] = change.alone
                elif expected:
                    tip = expected.pop(0)
                    sent[EXPECTED] = str(tip.position)
                    sent[EXPECTED_ON] = tip.ref.subject
                sealed.append((ref, headers, event, its_digest))
                messages.append(Message(subject, sent, body))
        if not messages:
            return []
        if self._frontier is None:
            position = await self._group.append(messages)
        else:
            with self._frontier.sending([message.subject for message in messages]):
                position = await self._group.append(messages)
        position -= len(messages)
        recorded: list[Recorded] = []
        for message, (ref, headers, event, its_digest) in zip(messages, sealed, strict=True):
            position += 1
            recorded.append(appended(position, ref, message.subject, headers, message.body, event, its_digest))
        if self._frontier is not None:
            self._frontier.add_own(recorded)
        return recorded

    async def batch(self, seconds: float) -> None:
        """Wait until the batch of appends that is being stored now is stored or refused, at most so long."""
        await self._group.batch(seconds)

    # ── read ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def history(
        self, ref: Ref, *, at: int | datetime | None = None, fresh: bool = False, verified: bool = False
    ) -> list[Recorded]:
        """All events of one aggregate in order, up to the position or time `at`.

        Malformed messages are left out. `fresh`: include all events that are stored now; without it, a replica that
        lags may answer. `verified`: raise Tampered for the first malformed message. Raises Unavailable if the log does
        not answer.
        """
        events, _ = await self._history(ref, fresh=fresh, verified=verified)
        return events if at is None else list(takewhile(lambda recorded: is_up_to(recorded, at), events))

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
        """Fold the events of one aggregate. The parameters are those of `history`."""
        state: S | None = None
        events, end = await self._history(ref, fresh=fresh, verified=verified)
        newest: Recorded | None = None
        for recorded in events:
            if at is not None and not is_up_to(recorded, at):
                return Loaded(state, Tip(ref) if newest is None else Tip(ref).after(newest))
            state, _ = evolved(evolve, state, recorded.event)
            newest = recorded
        return Loaded(state, end)

    async def first(self, filter_: str) -> tuple[Recorded | None, int]:
        """The first event on any subject that matches the filter, and the position of the last message there (or 0)."""
        last = await self._log.last_of(filter_)
        if last is None:
            return None, 0
        page, _ = await self._log.page(0, filter_)
        found = first_event(page) or first_event(await self._log.read(0, filter_, at_least=last.position))
        return found, last.position

    async def unused(self, filter_: str) -> int | None:
        """The position of the last message on any subject that matches the filter, if none of them is an event; else
        None. An append of the first event of an aggregate has to expect this position.
        """
        first, last = await self.first(filter_)
        return last if first is None else None

    async def read(self, after: int, filter_: str | None = None, limit: int = PAGE) -> list[Recorded]:
        """Up to `limit` messages after position `after`, in order, whose subject matches the
        filter; malformed or not.
        """
        page, _ = await self._log.page(after, filter_ or EVERYTHING, limit)
        return page

    async def between(self, after: int, last: int) -> list[Recorded]:
        """All messages after a position, up to `last`, which is known to be stored, or further."""
        return await self._log.read(after, EVERYTHING, at_least=last)

    async def newest(self, filter_: str | None = None) -> Recorded | None:
        """The newest message whose subject matches the filter, read from the stream's leader."""
        return await self._log.last_of(filter_ or subjects.events())

    async def next_position(self, after: int) -> int | None:
        """The position of the first message after a position, read from the stream's leader; None if there is none."""
        found = await self._log.next_of(">", after)
        return found.position if found is not None else None

    async def next_of(self, filter_: str, after: int) -> Recorded | None:
        """The first message after a position whose subject matches the filter, read from the stream's leader."""
        return await self._log.next_of(filter_, after)

    async def last_position(self) -> int:
        """The position of the newest message of the log; 0 if it is empty."""
        return await self._log.last_position()
