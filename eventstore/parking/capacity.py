"""How many messages may be parked at a time, and what becomes of the others: they are only counted.

Each source has room for MOST_OPEN open records. While it is full, the oldest stay, and one record under the key `more`
says how many came after them, of which the newest was what. Dropping or retrying records makes room for messages that
come later; what was only counted is not parked afterwards. Several processes that park at the same time may go over
the bound by a few.

Of closed records the newest MOST_CLOSED of a source are kept. Of a source that is read in order, the record under
`more` remembers how far the older ones went: none of those messages is parked again. One that names a position which
the source's stream has not reached is not believed: it would hide all that comes.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from eventstore.documents import Documents
from eventstore.log.envelope import Recorded
from eventstore.log.jetstream import Conflict, Stream, Unavailable
from eventstore.parking.parked import MORE, MOST_COUNT, MOST_ERROR, Parked, Status, record_of, visible
from runtime import subjects

MOST_OPEN = 1000
"""Open records of one source."""
MOST_CLOSED, SLACK = 1000, 100
"""Closed records of one source that are kept, and how many more there may be until the oldest are forgotten."""
AT_A_TIME = 64
"""Records that are read at a time."""
FORGOTTEN = "closed records are not kept for ever: the oldest, up to this position, were forgotten"
FRESH = 1.0
"""Seconds for which what the server said of the records of a source counts."""
MOST_POSITIONS = 10_000
"""Positions that are remembered between two counts, to count nothing twice; of more, only the number is."""


@dataclass
class Records:
    """The records of one source, as this process knows them."""

    open: int
    closed: int
    keys: set[str]
    #: up to this position all that had no room was counted
    counted: int
    at: float

    @property
    def full(self) -> bool:
        return self.open >= MOST_OPEN

    def added(self, key: str) -> None:
        """A record that was just made, here or elsewhere."""
        if key not in self.keys:
            self.keys.add(key)
            self.open += 1


@dataclass
class Uncounted:
    """Messages without room that the stream does not tell of yet."""

    subject: str = ""
    error: str = ""
    newest: int = 0
    positions: list[int] = field(default_factory=list)
    beyond: int = 0

    def add(self, subject: str, position: int, error: str) -> None:
        if len(self.positions) < MOST_POSITIONS:
            self.positions.append(position)
        else:
            self.beyond += 1
        if position >= self.newest:
            self.subject, self.error, self.newest = subject, error, position

    def join(self, later: "Uncounted") -> None:
        for position in later.positions:
            self.add(later.subject, position, later.error)
        self.beyond += later.beyond


class Capacity:
    """Whether a source has room, and the count of what had none. `ordered`: the sources that are read in the order of
    their positions, and again and again, with the stream that those are in: of these a position that was counted is
    never counted again.

    Raises Unavailable when the server does not answer.
    """

    def __init__(self, nc: Client, ordered: Mapping[str, str], *, timeout: float) -> None:
        self._nc = nc
        self._timeout = timeout
        self._stream = Stream(nc, subjects.PARKED, timeout=timeout)
        self._documents = Documents(nc, subjects.PARKED, timeout=timeout)
        self._ordered = ordered
        self._records: dict[str, Records] = {}
        self._uncounted: dict[str, Uncounted] = {}

    async def of(self, source: str) -> Records:
        """What there is of a source: a moment old, with what this process parked since."""
        known = self._records.get(source)
        if known is None or asyncio.get_running_loop().time() - known.at > FRESH:
            known = self._records[source] = await self._read(source)
        return known

    def only_count(self, source: str, subject: str, position: int, error: str) -> None:
        """Count a message that is not parked. `tell` says so."""
        self._uncounted.setdefault(source, Uncounted()).add(subject, position, error)

    async def tell(self) -> None:
        """Bring the records under `more` up to date. What was not told stays to be told."""
        for source in list(self._uncounted):
            waiting = self._uncounted.pop(source)
            try:
                await self._tell(source, waiting)
            except Unavailable:
                waiting.join(self._uncounted.pop(source, Uncounted()))
                self._uncounted[source] = waiting
                raise

    async def forget(self, source: str) -> None:
        """Forget the closed records of a source that are too many, the oldest first."""
        if (await self.of(source)).closed < MOST_CLOSED + SLACK:
            return
        earlier = await self._stream.last_of(subjects.parked_before(source))  # an earlier version had no closed states
        closed: dict[str, int] = {}
        after, more = 0, True
        while more:
            page, more = await self._stream.page(after, subjects.parked_of(source), AT_A_TIME)
            for recorded in page:
                record, after = record_of(recorded), recorded.position
                closed.pop(record.key, None)
                if not record.open and record.key != MORE and not named_by_position(record.key, earlier):
                    closed[record.key] = record.position
        oldest = list(closed)[: max(0, len(closed) - MOST_CLOSED)]
        if oldest and source in self._ordered:
            await self._settle(source, max(closed[key] for key in oldest))
        for key in oldest:
            await self._api(f"STREAM.PURGE.{self._stream.name}", {"filter": subjects.parked(source, key)})
        self._records.pop(source, None)

    async def _settle(self, source: str, position: int) -> None:
        """Note that messages up to this position are not parked again, whether there is a record of them or not."""
        subject = subjects.parked(source, MORE)
        while True:
            found, before = await self._more(source)
            if before is not None and before.position >= position:
                return
            if before is None:
                now = datetime.now(UTC)
                closing = {"status": Status.DROPPED, "actor": "nebula", "reason": FORGOTTEN, "closed_at": now}
                record = Parked(
                    source=source, key=MORE, subject=subject, position=position, error=FORGOTTEN, time=now, count=0
                ).model_copy(update=closing)
            else:
                record = before.model_copy(update={"position": position})
            body = record.model_dump_json(exclude_none=True).encode()
            try:
                put = await self._documents.put(subject, body, last=found.position if found is not None else 0)
            except Conflict:
                continue
            await self._forget_earlier(subject, put)
            return

    async def _tell(self, source: str, waiting: Uncounted) -> None:
        subject = subjects.parked(source, MORE)
        while True:
            records = await self.of(source)
            found, before = await self._more(source)
            fresh = waiting.positions
            if source in self._ordered:
                counted = before.position if before is not None else 0
                fresh = sorted({p for p in fresh if p > counted and str(p) not in records.keys})
            number = len(fresh) + waiting.beyond
            if not number:
                return
            goes_on = before is not None and before.open
            record = Parked(
                source=source,
                key=MORE,
                subject=visible(waiting.subject),
                position=max(waiting.newest, before.position if before is not None else 0),
                error=visible(f"these messages found no room and are only counted; the newest: {waiting.error}")[
                    :MOST_ERROR
                ],
                time=before.time if before is not None and goes_on else datetime.now(UTC),
                count=min(number + (before.count if before is not None and goes_on else 0), MOST_COUNT),
            )
            body = record.model_dump_json(exclude_none=True).encode()
            try:
                position = await self._documents.put(subject, body, last=found.position if found is not None else 0)
            except Conflict:
                continue  # another process counted as well
            records.counted = record.position
            await self._forget_earlier(subject, position)
            return

    async def _read(self, source: str) -> Records:
        held = await self._held(source)
        _, more = await self._more(source) if MORE in held else (None, None)
        return Records(
            open=sum(states == 1 for key, states in held.items() if key != MORE),  # closing adds a second state
            closed=sum(states > 1 for key, states in held.items() if key != MORE),
            keys=held.keys() - {MORE},
            counted=more.position if more is not None and source in self._ordered else 0,
            at=asyncio.get_running_loop().time(),
        )

    async def _more(self, source: str) -> tuple[Recorded | None, Parked | None]:
        """The record of a source under `more`, as it stands and as it is believed."""
        found = await self._stream.last_of(subjects.parked(source, MORE))
        if found is None:
            return None, None
        record = record_of(found)
        stream = self._ordered.get(source)
        if stream is not None and record.position > await self._end(stream):
            record = record.model_copy(update={"position": 0})
        return found, record

    async def _end(self, stream: str) -> int:
        """How far a stream has come."""
        return await Stream(self._nc, stream, timeout=self._timeout).last_position()

    async def _held(self, source: str) -> dict[str, int]:
        """The keys of a source, and how many states of each record there are."""
        ask = {"subjects_filter": subjects.parked_of(source), "offset": 0}
        held: dict[str, int] = {}
        while True:
            answer = await self._api(f"STREAM.INFO.{self._stream.name}", ask)
            page = answer.get("state", {}).get("subjects") or {}
            held.update({subject.rsplit(".", 1)[-1]: int(states) for subject, states in page.items()})
            if not page or len(held) >= int(answer.get("total") or 0):
                return held
            ask["offset"] = len(held)

    async def _forget_earlier(self, subject: str, position: int) -> None:
        """Of a count only its newest state is kept."""
        await self._api(f"STREAM.PURGE.{self._stream.name}", {"filter": subject, "seq": position})

    async def _api(self, what: str, ask: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = await self._nc.request(f"$JS.API.{what}", json.dumps(ask).encode(), timeout=self._timeout)
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the bus does not answer: {error!r}") from error
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            raise Unavailable(f"the parked messages cannot be read: {answer['error']}")
        return answer


def named_by_position(key: str, earlier: Recorded | None) -> bool:
    """Whether a key may be that of a record of an earlier version, whose first state no purge of its subject takes."""
    number = int(key) if key.isascii() and key.isdigit() and len(key) < 19 else None
    return number is not None and earlier is not None and number <= earlier.position
