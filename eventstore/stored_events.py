"""The stored events of an `eventsourcing` application on a stream: what the recorders do, without the blocking.

A record is one message: its subject names the aggregate, its headers are CloudEvents' and carry version and topic, its
body is the state as the application's mapper made it. An application's events are numbered by the stream itself: the
position of an event is its notification id.
"""

import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID

from eventsourcing.persistence import DataError, IntegrityError, Notification, StoredEvent, Tracking
from nats.aio.client import Client

from eventstore.envelope import GENESIS, Recorded
from eventstore.follow import follow
from eventstore.jetstream import EXPECTED, PAGE, Conflict, Message, Stream, Unavailable

MOST_REMEMBERED = 10_000
HIGHEST = "ce-highest"
"""On a snapshot that was stored after one of a later version: that version."""

_PLAIN = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')


class Order(Enum):
    """Which version may follow which, on one subject."""

    #: events: each version one more than the last, the first one 0 or 1
    NEXT = "next"
    #: tracking: upwards, with gaps
    UPWARDS = "upwards"
    #: snapshots: any, each once
    ANY = "any"


@dataclass(frozen=True, slots=True)
class _Tip:
    """What an append builds on: the highest version, and position and digest of the last message."""

    version: int = -1
    position: int = 0
    digest: str = GENESIS


@dataclass(frozen=True, slots=True)
class _Record:
    """What is to be stored as one message."""

    subject: str
    order: Order
    name: str
    version: int
    topic: str
    state: bytes
    id_type: str


class StoredEvents:
    """One kind of records (`kind`: events or snapshots) of one application, and its tracking records beside them."""

    def __init__(
        self, client: Callable[[], Awaitable[Client]], stream: str, prefix: str, kind: str, *, timeout: float
    ) -> None:
        self._client = client
        self._name = stream
        self._prefix = prefix
        self._kind = kind
        self._order = Order.NEXT if kind == "events" else Order.ANY
        self._timeout = timeout
        #: the tip of each subject as last seen: spares the read before a write
        self._tips: OrderedDict[str, _Tip] = OrderedDict()
        #: messages whose outcome could not be learned, by what they were made from: for the retry
        self._unknown: OrderedDict[tuple[_Record, ...], list[Message]] = OrderedDict()
        #: the highest notification id known to exist
        self._newest = 0

    async def _stream(self) -> Stream:
        return Stream(await self._client(), self._name, timeout=self._timeout)

    # ── write ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def insert(self, stored_events: Sequence[StoredEvent], tracking: Tracking | None = None) -> list[int]:
        """Store all, or none; the positions of the events.

        Raises IntegrityError when a version is taken or does not follow the last one, or when `tracking` has been
        overtaken; OperationalError when the outcome could not be learned: the same call again then settles it.
        """
        records = [self._tracking(tracking)] if tracking else []
        records += [self._record(event) for event in stored_events]
        if not records:
            return []
        last = await self._append(tuple(records))
        self._newest = max(self._newest, last)
        return list(range(last - len(stored_events) + 1, last + 1))

    async def _append(self, records: tuple[_Record, ...]) -> int:
        stream = await self._stream()
        messages = self._unknown.pop(records, None)
        unsure = messages is not None
        fresh = False
        while True:
            if messages is None:
                messages = await self._messages(stream, records, fresh=fresh)
            try:
                last = await stream.append(messages, unsure=unsure)
            except Conflict as conflict:
                if fresh and len(messages) == 0:
                    raise AssertionError from conflict
                messages, unsure, fresh = None, False, True  # look again: that names what is wrong, or it fits now
                continue
            except Unavailable:
                for message in messages:
                    self._tips.pop(message.subject, None)
                self._unknown[records] = messages
                _trim(self._unknown)
                raise
            for index, message in enumerate(messages, start=last - len(messages) + 1):
                self._learn(_placed(message, index))
            return last

    async def _messages(self, stream: Stream, records: tuple[_Record, ...], *, fresh: bool) -> list[Message]:
        """The records as messages on top of what stands there. Raises IntegrityError for what does not fit."""
        tips: dict[str, _Tip] = {}
        messages: list[Message] = []
        now = datetime.now(UTC).isoformat()
        for record in records:
            first = record.subject not in tips
            tip = await self._tip(stream, record, fresh=fresh) if first else tips[record.subject]
            await self._check(stream, record, tip)
            headers = {
                "ce-specversion": "1.0",
                "ce-id": f"{record.name}:{record.version}",
                "ce-type": quote(record.topic, safe=_PLAIN),
                "ce-source": f"/{self._prefix}/{record.subject.rsplit('.', 2)[1]}",
                "ce-subject": record.name,
                "ce-time": now,
                "ce-aggregateversion": str(record.version),
                "ce-idtype": record.id_type,
                "ce-prevhash": tip.digest,
                "content-type": "application/octet-stream",
            }
            if record.version < tip.version:
                headers[HIGHEST] = str(tip.version)
            made = Recorded(0, record.subject, dict(headers), record.state, datetime.now(UTC))
            tips[record.subject] = _Tip(max(tip.version, record.version), tip.position, made.digest)
            headers["Nats-Msg-Id"] = f"{record.subject}:{record.version}"
            headers["Nats-Expected-Stream"] = self._name
            if first:
                headers[EXPECTED] = str(tip.position)
            messages.append(Message(record.subject, headers, record.state))
        return messages

    async def _tip(self, stream: Stream, record: _Record, *, fresh: bool) -> _Tip:
        """The subject's tip: as remembered where that can be right, else as it stands there."""
        known = self._tips.get(record.subject)
        if not fresh and known is not None and record.version <= known.version + 1:
            return known
        if not fresh and known is None and record.order is Order.NEXT and record.version in (0, 1):
            return _Tip()  # most likely a new aggregate; the server says so if not
        last = await stream.last(record.subject, at_least=known.position if known else 0)
        if last is None:
            return _Tip()
        self._learn(last)
        return self._tips[record.subject]

    async def _check(self, stream: Stream, record: _Record, tip: _Tip) -> None:
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
                    raise IntegrityError(f"{record.name} has been tracked to {tip.version}; {record.version} is behind")
            case Order.ANY:
                if record.version == tip.version or (
                    record.version < tip.version
                    and any(r.version == record.version for r in await stream.read(0, record.subject))
                ):
                    raise IntegrityError(f"{what} is stored already")

    def _learn(self, recorded: Recorded) -> None:
        """Remember a subject's last message."""
        known = self._tips.get(recorded.subject)
        if known is None or known.position < recorded.position:
            self._tips[recorded.subject] = _Tip(_highest(recorded), recorded.position, recorded.digest)
            _trim(self._tips)
        self._tips.move_to_end(recorded.subject)

    # ── read ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def select(
        self, originator_id: UUID | str, gt: int | None, lte: int | None, *, desc: bool, limit: int | None
    ) -> list[StoredEvent]:
        """One aggregate's records with gt < version <= lte, by version, upwards or downwards."""
        stream = await self._stream()
        subject = self._subject(originator_id)
        known = self._tips.get(subject, _Tip())
        low = -1 if gt is None else gt
        if desc and limit is not None:
            newest = await stream.last(subject, at_least=known.position)
            if newest is None:
                return []
            self._learn(newest)
            top = _highest(newest) if lte is None else min(lte, _highest(newest))
            if self._order is Order.NEXT:
                low = max(low, top - limit)
            elif limit == 1 and lte is None and HIGHEST not in newest.headers:
                return [stored(newest)] if newest.version > low else []
        found = await self._between(stream, subject, low, lte, None if desc else limit, known.position)
        found.sort(key=lambda r: r.version, reverse=desc)
        return [stored(r) for r in found[:limit]]

    async def _between(
        self, stream: Stream, subject: str, low: int, lte: int | None, limit: int | None, at_least: int
    ) -> list[Recorded]:
        """The records with low < version <= lte in the order of the log; at least the `limit` lowest."""
        ordered = self._order is Order.NEXT
        after = await self._before(stream, subject, low) if ordered else 0
        found: list[Recorded] = []
        while True:
            page = await stream.read(after, subject, PAGE, at_least=0 if ordered and lte is not None else at_least)
            if page:
                after = page[-1].position
                if len(page) < PAGE:
                    self._learn(page[-1])
            found += [r for r in page if r.version > low and (lte is None or r.version <= lte)]
            enough = ordered and limit is not None and len(found) >= limit
            passed = ordered and lte is not None and bool(page) and page[-1].version >= lte
            if enough or passed or len(page) < PAGE:
                return found

    async def _before(self, stream: Stream, subject: str, version: int) -> int:
        """A position behind which all later versions stand, and not many earlier ones: found by halving."""
        known = self._tips.get(subject, _Tip())
        if version < PAGE:
            return 0
        if version >= known.version >= 0:
            return known.position
        newest = await stream.last(subject, at_least=known.position)
        low, high = 0, newest.position if newest else 0
        while high - low > 1:
            middle = (low + high) // 2
            page, _ = await stream.page(middle - 1, subject, 1)
            if page and version - PAGE < page[0].version <= version:
                return page[0].position
            if page and page[0].version <= version:
                low = page[0].position
            else:
                high = middle
        return low

    async def notifications(
        self, start: int | None, limit: int, stop: int | None, topics: Sequence[str], *, inclusive_of_start: bool
    ) -> list[Notification]:
        """Up to `limit` events from position `start` on, to `stop`, in order; of some topics only, where given."""
        stream = await self._stream()
        after = max(0, (start if start is not None else 1) - (1 if inclusive_of_start or start is None else 0))
        found: list[Notification] = []
        size = min(limit, PAGE) if not topics else PAGE
        while len(found) < limit and (stop is None or after < stop):
            if stop is not None:
                size = min(size, stop - after)
            page = await stream.read(after, self.filter, size, at_least=min(self._newest, stop or self._newest))
            found += [notification(r) for r in page if _wanted(r, topics) and (stop is None or r.position <= stop)]
            if len(page) < size:
                break
            after = page[-1].position
        return found[:limit]

    async def max_id(self) -> int | None:
        """The position of the newest event."""
        newest = await (await self._stream()).last(self.filter, at_least=self._newest)
        return newest.position if newest else None

    async def max_tracking_id(self, application: str) -> int | None:
        """How far another application's events have been processed."""
        subject = self._tracking_subject(application)
        known = self._tips.get(subject, _Tip())
        newest = await (await self._stream()).last(subject, at_least=known.position)
        if newest is None:
            return None
        self._learn(newest)
        return newest.version

    async def follow(self, after: int, topics: Sequence[str]) -> AsyncIterator[list[Notification]]:
        """What stands behind a position, then what comes, as soon as it is there; ends when the connection is closed."""
        async with aclosing(follow(await self._client(), after, [self.filter], stream=self._name)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                yield [notification(r) for r in batch if _wanted(r, topics)]

    # ── names ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def filter(self) -> str:
        return f"{self._prefix}.{self._kind}.*"

    def _subject(self, originator_id: UUID | str) -> str:
        return f"{self._prefix}.{self._kind}.{_token(str(originator_id), 'originator id')}"

    def _tracking_subject(self, application: str) -> str:
        return f"{self._prefix}.tracking.{_token(application, 'application name')}"

    def _record(self, event: StoredEvent) -> _Record:
        id_type = "uuid" if isinstance(event.originator_id, UUID) else "text"
        subject = self._subject(event.originator_id)
        if event.originator_version < 0:
            raise DataError(f"version {event.originator_version} of {subject}: versions begin with 0 or 1")
        name = str(event.originator_id)
        return _Record(subject, self._order, name, event.originator_version, event.topic, event.state, id_type)

    def _tracking(self, tracking: Tracking) -> _Record:
        name, position = tracking.application_name, tracking.notification_id
        body = json.dumps({"notification_id": position}).encode()
        return _Record(self._tracking_subject(name), Order.UPWARDS, name, position, "tracking", body, "text")


def subjects_of(prefix: str, kind: str) -> list[str]:
    """The subjects of one stream: that of an application's events holds its tracking records too."""
    return [f"{prefix}.{kind}.*", *([f"{prefix}.tracking.*"] if kind == "events" else [])]


def stored(recorded: Recorded) -> StoredEvent:
    return StoredEvent(**_fields(recorded))


def notification(recorded: Recorded) -> Notification:
    return Notification(id=recorded.position, **_fields(recorded))


def _fields(recorded: Recorded) -> dict[str, Any]:
    name = recorded.subject.rsplit(".", 1)[-1]
    return {
        "originator_id": UUID(name) if recorded.headers["ce-idtype"] == "uuid" else name,
        "originator_version": recorded.version,
        "topic": _topic(recorded),
        "state": recorded.body,
    }


def _topic(recorded: Recorded) -> str:
    return unquote(recorded.headers["ce-type"])


def _wanted(recorded: Recorded, topics: Sequence[str]) -> bool:
    return not topics or _topic(recorded) in topics


def _highest(recorded: Recorded) -> int:
    return int(recorded.headers.get(HIGHEST, recorded.version))


def _placed(message: Message, position: int) -> Recorded:
    headers = {k: v for k, v in message.headers.items() if not k.startswith("Nats-")}
    return Recorded(position, message.subject, headers, message.body, datetime.now(UTC))


def _token(value: str, what: str) -> str:
    """The value, when it can stand between two dots of a subject."""
    if not 1 <= len(value) <= 256 or not all("!" <= c <= "~" and c not in ".*>" for c in value):
        raise DataError(
            f"{value!r} cannot be an {what} here: it becomes part of a NATS subject, so use 1 to 256 visible ASCII "
            "characters without '.', '*', '>' and space"
        )
    return value


def _trim(remembered: OrderedDict[Any, Any]) -> None:
    while len(remembered) > MOST_REMEMBERED:
        remembered.popitem(last=False)
