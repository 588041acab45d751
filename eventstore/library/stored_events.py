"""The asynchronous work of the recorders of an `eventsourcing` application.

An application's events are numbered by their stream: the position of an event is its notification id.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, assert_never
from uuid import UUID

from eventsourcing.persistence import IntegrityError, Notification, StoredEvent, Tracking
from nats.aio.client import Client

from eventstore.library.records import (
    HIGHEST,
    Names,
    Order,
    Record,
    Tip,
    message,
    notification,
    placed,
    record_of,
    stored,
    topic,
    tracking_record,
)
from eventstore.log.envelope import Recorded
from eventstore.log.follow import follow
from eventstore.log.jetstream import PAGE, Conflict, Message, Stream, Unavailable

MOST_TIPS = 10_000
NEAR = 32
"""Read up to so many unneeded events instead of sending another request to find a better start."""
MOST_UNKNOWN = 100


class StoredEvents:
    """The records of one kind (events or snapshots) of one application, and, with its events, its tracking records."""

    def __init__(self, client: Callable[[], Awaitable[Client]], stream: str, names: Names, *, timeout: float) -> None:
        self._client = client
        self._name = stream
        self._names = names
        self._ordered = names.order is Order.NEXT
        self._timeout = timeout
        #: the last known tip of each subject, which saves a read before a write
        self._tips: OrderedDict[str, Tip] = OrderedDict()
        #: messages with an unknown outcome, by their records: a retry sends the same messages
        self._unknown: OrderedDict[tuple[Record, ...], list[Message]] = OrderedDict()
        #: the highest notification id known to exist
        self._newest = 0

    async def _stream(self) -> Stream:
        return Stream(await self._client(), self._name, timeout=self._timeout)

    # ── write ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def insert(self, stored_events: Sequence[StoredEvent], tracking: Tracking | None = None) -> list[int]:
        """Store all records, or none. Returns the positions of the events.

        Raises IntegrityError if a version exists or does not follow the last one, or if `tracking` is not higher than
        before; OperationalError if the outcome is unknown: then repeat the same call.
        """
        records = [tracking_record(self._names, tracking)] if tracking else []
        records += [record_of(self._names, event) for event in stored_events]
        if not records:
            return []
        last = await self._append(tuple(records))
        if stored_events:
            self._newest = max(self._newest, last)
        return list(range(last - len(stored_events) + 1, last + 1))

    async def _append(self, records: tuple[Record, ...]) -> int:
        stream = await self._stream()
        messages = self._unknown.pop(records, None)
        resent, fresh = messages is not None, False
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout
        while True:
            if messages is None:
                messages = await self._messages(stream, records, fresh=fresh)
            try:
                last = await stream.append(messages, resent=resent)
            except Conflict:
                if clock() > deadline:  # other writers were first each time
                    raise
                messages, resent, fresh = (
                    None,
                    False,
                    True,
                )  # read the tips again: they show the conflict, or there is none
            except Unavailable:
                self._unknown[records] = messages
                _trim(self._unknown, MOST_UNKNOWN)
                raise
            else:
                ends = {m.subject: placed(m, p) for p, m in enumerate(messages, start=last - len(messages) + 1)}
                for end in ends.values():
                    self._learn(end)
                return last

    async def _messages(self, stream: Stream, records: Sequence[Record], *, fresh: bool) -> list[Message]:
        """The records as messages that follow the tips of their subjects. Raises IntegrityError for a wrong version."""
        tips: dict[str, Tip] = {}
        messages: list[Message] = []
        now = datetime.now(UTC)
        for record in records:
            first = record.subject not in tips
            tip = await self._tip(stream, record, fresh=fresh) if first else tips[record.subject]
            await self._check(stream, record, tip)
            made, tips[record.subject] = message(record, tip, self._name, now, first=first)
            messages.append(made)
        return messages

    async def _tip(self, stream: Stream, record: Record, *, fresh: bool) -> Tip:
        """The subject's tip: the remembered one if it may be right, else read from the stream."""
        known = self._tips.get(record.subject)
        next_ = record.order is Order.NEXT
        if known is not None and not fresh and (not next_ or record.version <= known.version + 1):
            return known
        if known is None and not fresh and next_ and record.version in (0, 1):
            return Tip()  # probably a new aggregate; if not, the server refuses the append
        last = await stream.last_of(record.subject)
        if last is None:
            return Tip()
        self._learn(last)
        return self._tips[record.subject]

    async def _check(self, stream: Stream, record: Record, tip: Tip) -> None:
        what = f"version {record.version} of {record.subject}"
        match record.order:
            case Order.NEXT:
                if record.version <= tip.version:
                    raise IntegrityError(f"{what} is stored already; the last one is {tip.version}")
                if tip.version >= 0 and record.version != tip.version + 1:
                    raise IntegrityError(f"{what} does not follow {tip.version}: {tip.version + 1} has to be next")
                if tip.version < 0 and record.version > 1:
                    raise IntegrityError(f"{what} cannot be the first one: a history begins with version 0 or 1")
            case Order.UPWARDS:
                if record.version <= tip.version:
                    raise IntegrityError(
                        f"{record.name} is already tracked up to {tip.version}, so {record.version} is refused"
                    )
            case Order.ANY:
                if record.version == tip.version or (
                    record.version < tip.version
                    and any(r.version == record.version for r in await stream.read(0, record.subject))
                ):
                    raise IntegrityError(f"{what} is stored already")
            case _ as never:
                assert_never(never)

    def _learn(self, last: Recorded) -> None:
        """Remember the tip of a subject."""
        known = self._tips.get(last.subject)
        if known is None or known.position < last.position:
            self._tips[last.subject] = Tip.of(last)
            _trim(self._tips, MOST_TIPS)
        self._tips.move_to_end(last.subject)

    # ── read ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def select(
        self, originator_id: UUID | str, gt: int | None, lte: int | None, *, desc: bool, limit: int | None
    ) -> list[StoredEvent]:
        """One aggregate's records with gt < version <= lte, sorted by version; `desc`: descending."""
        stream = await self._stream()
        subject = self._names.of(originator_id)
        low = -1 if gt is None else gt
        if desc and limit is not None:
            newest = await stream.last(subject, at_least=self._known(subject).position)
            if newest is None:
                return []
            self._learn(newest)
            if limit == 1 and lte is None and HIGHEST not in newest.headers:
                return [stored(newest)] if newest.version > low else []
            if self._ordered:
                low = max(low, (newest.version if lte is None else min(lte, newest.version)) - limit)
        found = await self._between(stream, subject, low, lte, None if desc else limit)
        found.sort(key=lambda r: r.version, reverse=desc)
        return [stored(r) for r in found[:limit]]

    async def _between(
        self, stream: Stream, subject: str, low: int, lte: int | None, limit: int | None
    ) -> list[Recorded]:
        """The records with low < version <= lte in the order of the log; at least the `limit` lowest."""
        known = self._known(subject).position
        after = await self._before(stream, subject, low) if self._ordered else 0
        found: list[Recorded] = []
        while True:
            page = await stream.read(after, subject, PAGE, at_least=known)
            found += [r for r in page if r.version > low and (lte is None or r.version <= lte)]
            if page and len(page) < PAGE:
                self._learn(page[-1])
            enough = limit is not None and len(found) >= limit
            passed = lte is not None and bool(page) and page[-1].version >= lte
            if len(page) < PAGE or (self._ordered and (enough or passed)):
                return found
            after = page[-1].position

    async def _before(self, stream: Stream, subject: str, version: int) -> int:
        """A position after which there are all later versions, and few earlier ones.

        The search alternates between interpolation (as if versions were evenly spread) and halving (if they are not).
        """
        if version < NEAR:
            return 0
        known = self._known(subject)
        if version == known.version:
            return known.position
        if version > known.version:
            newest = await stream.last(subject, at_least=known.position)
            if newest is None or version >= newest.version:
                return newest.position if newest else 0
            self._learn(newest)
            known = self._known(subject)
        low, oldest, high, latest = 0, 0, known.position, known.version
        evenly = True
        while high - low > 1:
            share = (version - NEAR / 2 - oldest) / max(1, latest - oldest) if evenly else 0.5
            evenly = not evenly
            middle = min(max(low + 1, low + round(share * (high - low))), high - 1)
            page, _ = await stream.page(middle - 1, subject, 1)
            if page and page[0].version <= version:
                low, oldest = page[0].position, page[0].version
                if version - NEAR < oldest:
                    break
            else:
                high, latest = middle, page[0].version if page else latest
        return low

    async def notifications(
        self, start: int | None, limit: int, stop: int | None, topics: Sequence[str], *, inclusive_of_start: bool
    ) -> list[Notification]:
        """Up to `limit` events from position `start` to `stop`, in order; with `topics`, of these topics only."""
        stream = await self._stream()
        after = 0 if start is None else max(0, start - 1 if inclusive_of_start else start)
        found: list[Notification] = []
        while len(found) < limit and (stop is None or after < stop):
            size = PAGE if topics else min(limit - len(found), PAGE)
            page = await stream.read(after, self._names.filter, size, at_least=self._newest)
            found += [notification(r) for r in page if _wanted(r, topics) and (stop is None or r.position <= stop)]
            if page:
                after = page[-1].position
                self._newest = max(self._newest, after)
            if len(page) < size:
                break
        return found[:limit]

    async def max_id(self) -> int | None:
        """The position of the newest event."""
        newest = await (await self._stream()).last(self._names.filter, at_least=self._newest)
        return newest.position if newest else None

    async def max_tracking_id(self, application: str) -> int | None:
        """The position up to which events of another application were processed; None if there is none."""
        subject = self._names.tracking(application)
        newest = await (await self._stream()).last(subject, at_least=self._known(subject).position)
        if newest is None:
            return None
        self._learn(newest)
        return newest.version

    async def listen(self, after: int, topics: Sequence[str]) -> AsyncGenerator[list[Notification], None]:
        """The events after a position, then new ones as soon as they are stored, for ever.

        Raises OperationalError if the connection is lost and cannot be opened again.
        """
        while True:
            feed = follow(await self._client(), after, [self._names.filter], stream=self._name, event_keys=None)
            async with aclosing(feed) as batches:
                async for batch in batches:
                    after = batch[-1].position
                    yield [notification(r) for r in batch if _wanted(r, topics)]

    def _known(self, subject: str) -> Tip:
        return self._tips.get(subject, Tip())


def _wanted(recorded: Recorded, topics: Sequence[str]) -> bool:
    return not topics or topic(recorded) in topics


def _trim(remembered: OrderedDict[Any, Any], most: int) -> None:
    while len(remembered) > most:
        remembered.popitem(last=False)
