"""Messages that could not be processed, stored for people in the stream `NEBULA_PARKED`, with a subject for each
record.

`source`: where the message comes from, `log` or another stream. `key`: its name within the source; for the log, its
position. A record is open until somebody drops it or retries it, which puts the message back. Parking the same message
again, after a restart or by another reader, changes nothing. The newest message on a record's subject is the current
state of the record.

The number of open records of a source is limited (`capacity.py`); further messages are only counted. Old closed records
are deleted.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.errors import BadSubjectError, Error as NatsError
from nats.js.errors import APIError, NotFoundError

from eventstore.documents import Documents
from eventstore.log.envelope import Recorded
from eventstore.log.follow import follow
from eventstore.log.jetstream import Conflict, Stream, Unavailable
from eventstore.log.received import own
from eventstore.parking.capacity import Capacity
from eventstore.parking.parked import MORE, MOST_BODY, MOST_ERROR, MOST_HEADERS, Parked, Status, record_of, visible
from runtime import logs, subjects

__all__ = [
    "CHECKPOINTS",
    "HOLES",
    "LOG",
    "REPORTS",
    "WANTED",
    "Closed",
    "NoRetry",
    "NotParked",
    "Parked",
    "Parking",
    "Status",
]

log = logs.get(__name__)

LOG = "log"
"""Messages of the log. Their bodies are not copied, because they stay in the log for ever."""
REPORTS = "reports"
"""Reports of nodes."""
CHECKPOINTS = "checkpoints"
"""Messages in the stream of checkpoints that are no checkpoints."""
HOLES = "holes"
"""Ranges of positions of the log without messages; the key is the first position."""
WANTED = "wanted"
"""Messages in the stream of wanted documents that handlers did not write. Their bodies may contain secrets, and are not
stored."""

RETRIED_INTO: Mapping[str, str] = {REPORTS: subjects.REPORTS}
"""The stream into which a message of a source is put back."""

ORDERED: Mapping[str, str] = {LOG: subjects.EVENTS, CHECKPOINTS: subjects.CHECKPOINTS, HOLES: subjects.EVENTS}
"""The sources that each process reads in order from the beginning when it starts, with the stream
of their positions.
"""
BODILESS = (LOG, WANTED)
"""The sources whose bodies are not stored."""

SOURCES = (LOG, REPORTS, CHECKPOINTS, HOLES, WANTED)

AGAIN = 1.0
"""Seconds between two tries to store the counts."""
TIDY = 30.0
"""Seconds between two deletions of what other processes leave."""


class NotParked(LookupError):
    """There is no such record."""


class Closed(Exception):
    """The record is already closed in another way. `record`: its current state."""

    def __init__(self, record: Parked) -> None:
        super().__init__(f"{record.source}/{record.key} is already {record.status}")
        self.record = record


class NoRetry(Exception):
    """The message cannot be put back. The text says why, and what to do."""


class Parking:
    """The parked messages of one cloud. All methods raise Unavailable if the bus does not answer."""

    def __init__(self, nc: Client, *, timeout: float = 5.0) -> None:
        self._nc = nc
        self._timeout = timeout
        self._stream = Stream(nc, subjects.PARKED, timeout=timeout)
        self._documents = Documents(nc, subjects.PARKED, timeout=timeout)
        self._capacity = Capacity(nc, ORDERED, timeout=timeout)

    async def keep_count(self) -> None:
        """Store once a second how many messages had no room, for ever."""
        while True:
            await asyncio.sleep(AGAIN)
            try:
                await self._capacity.write_counts()
            except Unavailable as error:
                log.warning("cannot store the number of messages without room; it will try again", error=str(error))

    async def write_counts(self) -> None:
        """Store the number of messages without room now. Raises Unavailable; then they are stored at the next call."""
        await self._capacity.write_counts()

    async def keep_tidy(self) -> None:
        """Delete old records and states for the processes that may not delete any, for ever."""
        while True:
            await asyncio.sleep(TIDY)
            try:
                for source in SOURCES:
                    await self._capacity.tidy(source)
            except Unavailable as error:
                log.warning("cannot delete old records of parked messages yet", error=str(error))

    async def park(
        self,
        source: str,
        key: str,
        *,
        subject: str,
        position: int,
        error: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        size: int | None = None,
    ) -> bool:
        """Park a message, at most once. Returns False if it was parked before (its record may be closed), or if there
        is no room; then it is counted (`keep_count`). `size`: bytes of its body, if the body is not given.
        """
        records = await self._capacity.of(source)
        if key in records.keys or (source in ORDERED and position <= records.counted):
            return False
        if records.full:
            self._capacity.only_count(source, subject, position, error)
            return False
        kept = source not in BODILESS and len(body) <= MOST_BODY
        few = sum(len(name) + len(value) for name, value in (headers or {}).items()) <= MOST_HEADERS
        record = Parked(
            source=source,
            key=key,
            subject=visible(subject),
            position=position,
            error=visible(" ".join(error.split()))[:MOST_ERROR],
            time=datetime.now(UTC),
            size=len(body) if size is None else size,
            headers={visible(k): visible(v) for k, v in (headers or {}).items()} if few else {},
            data_base64=base64.b64encode(body).decode() if kept else None,
        )
        try:
            await self._put(record, 0)
        except Conflict:
            records.added(key)
            return False
        records.added(key)
        log.error("message parked", source=source, key=key, subject=record.subject, error=record.error)
        return True

    def only_count(self, source: str, *, subject: str, position: int, error: str) -> None:
        """Count a message that is not parked."""
        self._capacity.only_count(source, subject, position, error)

    async def park_message(self, recorded: Recorded, reason: str) -> bool:
        """Park a message of the log."""
        return await self.park(
            LOG,
            str(recorded.position),
            subject=recorded.subject,
            position=recorded.position,
            error=reason,
            headers=recorded.headers,
            body=recorded.body,
        )

    async def get(self, source: str, key: str) -> Parked:
        """The current state of a record. Raises NotParked."""
        record, _ = await self._newest(source, key)
        return record

    async def drop(self, source: str, key: str, *, actor: str, reason: str) -> Parked:
        """Close the record: somebody has seen it and needs it no more. Raises NotParked, Closed.

        A parked message of the wanted documents is also deleted from their stream. Otherwise its node would read it
        and report it as malformed for ever.
        """
        if source == WANTED and key != MORE:
            await self._remove(await self.get(source, key))
        return await self._close(source, key, Status.DROPPED, actor, reason)

    async def retry(self, source: str, key: str, *, actor: str) -> Parked:
        """Put the message back on its subject, where it is judged again. Raises NotParked, Closed, NoRetry."""
        record, _ = await self._newest(source, key)
        if record.status is not Status.OPEN:
            return await self._close(source, key, Status.RETRIED, actor, None)
        stream = RETRIED_INTO.get(source)
        if key == MORE:
            raise NoRetry("these messages were only counted, so they cannot be retried: drop the record")
        if stream is None:
            raise NoRetry(f"a message of {source} cannot be retried: drop it once you have seen it")
        if record.body is None:
            raise NoRetry(f"its body of {record.size} bytes was too large to store, so it cannot be retried: drop it")
        headers = own(record.headers)  # without an id, which a node could use first: this one would be a duplicate
        js = self._nc.jetstream(timeout=self._timeout)
        try:
            await js.publish(record.subject, record.body, stream=stream, headers=headers)
        except (APIError, BadSubjectError, ValueError) as error:  # a subject of another stream, or an invalid message
            raise NoRetry(f"the bus refuses the message ({error}): drop it") from error
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the message was not stored: {error!r}") from error
        return await self._close(source, key, Status.RETRIED, actor, None)

    async def follow(self) -> AsyncIterator[list[tuple[int, Parked]]]:
        """Each state of each record with its position in the stream, from the first one on, for ever."""
        async for batch in follow(self._nc, 0, [subjects.PARKED_EVER], stream=subjects.PARKED, event_keys=None):
            yield [(recorded.position, record_of(recorded)) for recorded in batch]

    async def at(self, position: int) -> Parked:
        """The state of a record at a position of the stream. Raises NotParked."""
        page, _ = await self._stream.page(position - 1, subjects.PARKED_EVER, 1)
        if not page or page[0].position != position:
            raise NotParked(str(position))
        return record_of(page[0])

    async def _close(self, source: str, key: str, status: Status, actor: str, reason: str | None) -> Parked:
        while True:
            record, last = await self._newest(source, key)
            if record.status is status:
                return record
            if record.status is not Status.OPEN:
                raise Closed(record)
            if not last:  # an earlier version stored it: copy its state to its own subject first
                try:
                    last = await self._put(record, 0)
                except Conflict:
                    continue
            closing = {"status": status, "actor": actor, "reason": reason, "closed_at": datetime.now(UTC)}
            closed = record.model_copy(update=closing)
            try:
                await self._put(closed, last)
            except Conflict:
                continue  # somebody else has closed it: read it again
            log.info("parked message closed", source=source, key=key, status=status, actor=actor)
            try:
                await self._capacity.forget(source)
            except Unavailable as error:
                log.warning("cannot delete old records of parked messages yet", source=source, error=str(error))
            return closed

    async def _remove(self, record: Parked) -> None:
        """Delete the message of a record from the stream of wanted documents, if it is still there."""
        wanted = Stream(self._nc, subjects.WANTED, timeout=self._timeout)
        page, _ = await wanted.page(max(record.position - 1, 0), subjects.wanted_of(), 1)
        if not page or (page[0].position, visible(page[0].subject)) != (record.position, record.subject):
            return
        try:
            await self._nc.jetstream(timeout=self._timeout).delete_msg(subjects.WANTED, record.position)
        except NotFoundError:
            return  # it was replaced in the meantime
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the message was not removed: {error!r}") from error

    async def _newest(self, source: str, key: str) -> tuple[Parked, int]:
        """The record, and the last position on its subject, which its next state has to expect."""
        found = await self._stream.last_of(subjects.parked(source, key))
        if found is not None:
            return record_of(found), found.position
        if key.isascii() and key.isdigit() and len(key) < 19:  # of an earlier version: its record has no own subject
            page, _ = await self._stream.page(int(key) - 1, subjects.parked_before(source), 1)
            if page and page[0].position == int(key):
                return record_of(page[0]), 0
        raise NotParked(f"{source}/{key}")

    async def _put(self, record: Parked, last: int) -> int:
        subject = subjects.parked(record.source, record.key)
        return await self._documents.put(subject, record.model_dump_json(exclude_none=True).encode(), last=last)
