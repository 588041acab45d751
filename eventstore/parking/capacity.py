"""The limit of parked messages. Messages beyond it are only counted.

Each source may have MOST_OPEN open records. While it is full, the oldest records stay, and one record with the key
`more` has the number of later messages, and the error of the newest one. Dropping or retrying records makes room for
messages that come later. A message that was only counted is not parked afterwards. If several processes park
concurrently, there may be a few more records than the limit.

For each source the newest MOST_CLOSED closed records are kept. If the source is read in order, the record `more` has
the position of the newest deleted record, so that those messages are not parked again. If that position is beyond the
end of the source's stream it is ignored, because it would hide all new messages.
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
from runtime.bus.api import api, imports

MOST_OPEN = 1000
"""Maximum number of open records of one source."""
MOST_CLOSED, SLACK = 1000, 100
"""Number of closed records of one source that are kept, and how many more there may be before the
oldest are deleted.
"""
AT_A_TIME = 64
"""Number of records per read."""
FORGOTTEN = "closed records are not kept for ever: the oldest ones, up to this position, were deleted"
FRESH = 1.0
"""Seconds after which the records of a source are read from the server again."""
MOST_POSITIONS = 10_000
"""Maximum number of positions that are remembered between two counts, so that no message is counted twice."""


@dataclass
class Records:
    """The records of one source, as this process knows them."""

    open: int
    closed: int
    keys: set[str]
    #: all messages without room up to this position were counted
    counted: int
    #: when they were read, by the clock of the event loop
    at: float

    @property
    def full(self) -> bool:
        return self.open >= MOST_OPEN

    def added(self, key: str) -> None:
        """Add a record that was just stored, by this or another process."""
        if key not in self.keys:
            self.keys.add(key)
            self.open += 1


@dataclass
class Uncounted:
    """Messages without room that are not yet in the record `more`."""

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
    """Whether a source has room, and the number of messages that had none.

    `ordered`: the sources that each process reads again from the start in the order of positions, with their streams.
    For these, a position that was counted is never counted again. All methods raise Unavailable.
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
        """The records of a source, read at most FRESH seconds ago, with those that this process parked since."""
        known = self._records.get(source)
        if known is None or asyncio.get_running_loop().time() - known.at > FRESH:
            known = self._records[source] = await self._read(source)
        return known

    def only_count(self, source: str, subject: str, position: int, error: str) -> None:
        """Count a message that is not parked. `write_counts` stores the count."""
        self._uncounted.setdefault(source, Uncounted()).add(subject, position, error)

    async def write_counts(self) -> None:
        """Update the records `more`. A count that cannot be stored is kept for the next call."""
        for source in list(self._uncounted):
            waiting = self._uncounted.pop(source)
            try:
                await self._write_count(source, waiting)
            except Unavailable:
                waiting.join(self._uncounted.pop(source, Uncounted()))
                self._uncounted[source] = waiting
                raise

    async def forget(self, source: str) -> None:
        """Delete the oldest closed records of a source if there are too many."""
        if imports(self._nc):  # no right to
            return
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

    async def tidy(self, source: str) -> None:
        """Delete what processes leave that may not delete: the oldest closed records, and earlier states of `more`."""
        if (await self._states(source)).get(MORE, 0) > 1:
            found, _ = await self._more(source)
            if found is not None:
                await self._forget_earlier(found.subject, found.position)
        await self.forget(source)

    async def _settle(self, source: str, position: int) -> None:
        """Store in the record `more` that messages up to this position must not be parked again."""
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

    async def _write_count(self, source: str, waiting: Uncounted) -> None:
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
            continues = before is not None and before.open
            record = Parked(
                source=source,
                key=MORE,
                subject=visible(waiting.subject),
                position=max(waiting.newest, before.position if before is not None else 0),
                error=visible(
                    f"there was no room for these messages, so they are only counted; newest: {waiting.error}"
                )[:MOST_ERROR],
                time=before.time if before is not None and continues else datetime.now(UTC),
                count=min(number + (before.count if before is not None and continues else 0), MOST_COUNT),
            )
            body = record.model_dump_json(exclude_none=True).encode()
            try:
                position = await self._documents.put(subject, body, last=found.position if found is not None else 0)
            except Conflict:
                continue  # another process has updated the count
            records.counted = record.position
            await self._forget_earlier(subject, position)
            return

    async def _read(self, source: str) -> Records:
        states_of = await self._states(source)
        _, more = await self._more(source) if MORE in states_of else (None, None)
        return Records(
            open=sum(states == 1 for key, states in states_of.items() if key != MORE),  # closing adds a second state
            closed=sum(states > 1 for key, states in states_of.items() if key != MORE),
            keys=states_of.keys() - {MORE},
            counted=more.position if more is not None and source in self._ordered else 0,
            at=asyncio.get_running_loop().time(),
        )

    async def _more(self, source: str) -> tuple[Recorded | None, Parked | None]:
        """The record `more` of a source: the stored message, and the record with an impossible position set to 0."""
        found = await self._stream.last_of(subjects.parked(source, MORE))
        if found is None:
            return None, None
        record = record_of(found)
        stream = self._ordered.get(source)
        if stream is not None and record.position > await self._end(stream):
            record = record.model_copy(update={"position": 0})
        return found, record

    async def _end(self, stream: str) -> int:
        """The last position of a stream."""
        return await Stream(self._nc, stream, timeout=self._timeout).last_position()

    async def _states(self, source: str) -> dict[str, int]:
        """The number of stored states of each record of a source, by key."""
        ask = {"subjects_filter": subjects.parked_of(source), "offset": 0}
        found: dict[str, int] = {}
        while True:
            answer = await self._api(f"STREAM.INFO.{self._stream.name}", ask)
            page = answer.get("state", {}).get("subjects") or {}
            found.update({subject.rsplit(".", 1)[-1]: int(states) for subject, states in page.items()})
            if not page or len(found) >= int(answer.get("total") or 0):
                return found
            ask["offset"] = len(found)

    async def _forget_earlier(self, subject: str, position: int) -> None:
        """Delete the earlier states of a count."""
        if imports(self._nc):  # no right to: handlers do it
            return
        await self._api(f"STREAM.PURGE.{self._stream.name}", {"filter": subject, "seq": position})

    async def _api(self, what: str, ask: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = await self._nc.request(api(self._nc, what), json.dumps(ask).encode(), timeout=self._timeout)
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the bus does not answer: {error!r}") from error
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            raise Unavailable(f"the parked messages cannot be read: {answer['error']}")
        return answer


def named_by_position(key: str, earlier: Recorded | None) -> bool:
    """Whether a record may be from an earlier version, which stored its first state on another subject. A purge of the
    record's subject would not delete that state.
    """
    number = int(key) if key.isascii() and key.isdigit() and len(key) < 19 else None
    return number is not None and earlier is not None and number <= earlier.position
