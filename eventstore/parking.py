"""Messages that could not be taken in, put aside for people: stream `NEBULA_PARKED`, one subject for each.

`source` says what the message is from: `log` (named by its position) or another stream. `key` names it within its
source. A record is kept for ever. It is open until somebody drops it or puts the message back (`retry`); parking the
same message again, after a restart or by another reader, changes nothing. The newest message on a record's subject is
the record as it is now.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from nats.aio.client import Client
from nats.errors import BadSubjectError
from nats.errors import Error as NatsError
from nats.js.errors import APIError
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from eventstore.documents import Documents
from eventstore.envelope import Recorded
from eventstore.follow import follow
from eventstore.jetstream import Conflict, Stream, Unavailable, own
from runtime import logs, subjects

log = logs.get(__name__)

LOG = "log"
"""The source of what stands in the log. Its body is not copied: the message stays in the log for ever."""
REPORTS = "reports"
"""The source of what nodes reported."""
CHECKPOINTS = "checkpoints"
"""The source of what stands among the checkpoints and is none."""

RETRIED_INTO: Mapping[str, str] = {REPORTS: subjects.REPORTS}
"""The stream that a message of a source is put back into."""

MOST_BODY, MOST_HEADERS, MOST_ERROR = 256 * 1024, 64 * 1024, 500
"""Bytes (of an error: characters) that are kept. Of a larger body only its size is."""


#: Seconds until a message that could not be parked is tried again.
AGAIN = 1.0


class Status(StrEnum):
    OPEN = "open"
    DROPPED = "dropped"
    RETRIED = "retried"


class Parked(BaseModel):
    """One message that was put aside: where it came from, what is wrong with it, and what became of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: str
    key: str
    subject: str = Field(description="the subject on which the message came")
    position: int = Field(description="the message's position in its stream; 0 where it was not stored")
    error: str
    time: AwareDatetime = Field(description="when it was parked")
    size: int = Field(default=0, description="bytes of the message's body")
    headers: dict[str, str] = Field(default_factory=dict)
    data_base64: str | None = Field(default=None, description="the body, where it is kept here")
    status: Status = Status.OPEN
    actor: str | None = Field(default=None, description="who closed the record")
    reason: str | None = None
    closed_at: AwareDatetime | None = None

    @property
    def open(self) -> bool:
        return self.status is Status.OPEN

    @property
    def body(self) -> bytes | None:
        return base64.b64decode(self.data_base64) if self.data_base64 is not None else None


class NotParked(LookupError):
    """There is no such record."""


class Closed(Exception):
    """The record was closed before, in another way. `record` is the record as it is."""

    def __init__(self, record: Parked) -> None:
        super().__init__(f"{record.source}/{record.key} is {record.status} already")
        self.record = record


class NoRetry(Exception):
    """The message cannot be put back. The text says why."""


class Parking:
    """The parked messages of one cloud. Every method raises Unavailable when the bus does not answer."""

    def __init__(self, nc: Client, *, timeout: float = 5.0) -> None:
        self._nc = nc
        self._timeout = timeout
        self._stream = Stream(nc, subjects.PARKED, timeout=timeout)
        self._documents = Documents(nc, subjects.PARKED, timeout=timeout)

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
    ) -> bool:
        """Put a message aside, at most once. False when it was parked before, whatever became of it since."""
        kept = source != LOG and len(body) <= MOST_BODY
        few = sum(len(name) + len(value) for name, value in (headers or {}).items()) <= MOST_HEADERS
        record = Parked(
            source=source,
            key=key,
            subject=visible(subject),
            position=position,
            error=visible(" ".join(error.split()))[:MOST_ERROR],
            time=datetime.now(UTC),
            size=len(body),
            headers={visible(k): visible(v) for k, v in (headers or {}).items()} if few else {},
            data_base64=base64.b64encode(body).decode() if kept else None,
        )
        try:
            await self._put(record, 0)
        except Conflict:
            return False
        log.error("message parked", source=source, key=key, subject=record.subject, error=record.error)
        return True

    async def park_message(self, recorded: Recorded, reason: str) -> bool:
        """Put a message of the log aside."""
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
        """The record as it is now. Raises NotParked."""
        record, _ = await self._newest(source, key)
        return record

    async def drop(self, source: str, key: str, *, actor: str, reason: str) -> Parked:
        """Note that somebody has seen the message and wants no more of it. Raises NotParked, Closed."""
        return await self._close(source, key, Status.DROPPED, actor, reason)

    async def retry(self, source: str, key: str, *, actor: str) -> Parked:
        """Put the message back on its subject, where it is judged again. Raises NotParked, Closed, NoRetry."""
        record, _ = await self._newest(source, key)
        if record.status is not Status.OPEN:
            return await self._close(source, key, Status.RETRIED, actor, None)
        stream = RETRIED_INTO.get(source)
        if stream is None:
            raise NoRetry(f"a message of {source} cannot be put back: drop it once you have seen it")
        if record.body is None:
            raise NoRetry(f"its {record.size} bytes were too many to be kept: drop it")
        headers = {**own(record.headers), "Nats-Msg-Id": f"retry.{source}.{key}"}
        js = self._nc.jetstream(timeout=self._timeout)
        try:
            await js.publish(record.subject, record.body, stream=stream, headers=headers)
        except (APIError, BadSubjectError, ValueError) as error:  # of another stream, or not what a server takes
            raise NoRetry(f"the bus refuses it ({error}): drop it") from error
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the message was not stored: {error!r}") from error
        return await self._close(source, key, Status.RETRIED, actor, None)

    async def follow(self) -> AsyncIterator[list[tuple[int, Parked]]]:
        """Each state of each record, with its position among the parked, from the first on and for ever."""
        async for batch in follow(self._nc, 0, [subjects.PARKED_EVER], stream=subjects.PARKED):
            yield [(recorded.position, record_of(recorded)) for recorded in batch]

    async def at(self, position: int) -> Parked:
        """The record as a message among the parked has it. Raises NotParked."""
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
            closing = {"status": status, "actor": actor, "reason": reason, "closed_at": datetime.now(UTC)}
            closed = record.model_copy(update=closing)
            try:
                await self._put(closed, last)
            except Conflict:
                continue  # somebody else closed it: look again
            log.info("parked message closed", source=source, key=key, status=status, actor=actor)
            return closed

    async def _newest(self, source: str, key: str) -> tuple[Parked, int]:
        """The record, and what its next state expects the last position on its subject to be."""
        found = await self._stream.last_of(subjects.parked(source, key))
        if found is not None:
            return record_of(found), found.position
        if key.isascii() and key.isdigit() and len(key) < 19:  # one of before, when records had no subject of their own
            page, _ = await self._stream.page(int(key) - 1, subjects.parked_before(source), 1)
            if page and page[0].position == int(key):
                return record_of(page[0]), 0
        raise NotParked(f"{source}/{key}")

    async def _put(self, record: Parked, last: int) -> int:
        subject = subjects.parked(record.source, record.key)
        return await self._documents.put(subject, record.model_dump_json(exclude_none=True).encode(), last=last)


def record_of(recorded: Recorded) -> Parked:
    """The record that a message among the parked holds; of a message that is no record, one that says so."""
    _, _, source, *rest = recorded.subject.split(".")
    key = rest[0] if rest else str(recorded.position)
    try:
        record = Parked.model_validate_json(recorded.body)
        if (record.source, record.key) != (source, key):
            raise ValueError("it names another record")
        _ = record.body
    except (ValidationError, ValueError, binascii.Error, RecursionError):
        return foreign(recorded, source, key)
    return record


def foreign(recorded: Recorded, source: str, key: str) -> Parked:
    """What an earlier version parked, or what somebody else put there."""
    said = recorded.headers.get
    position = said("Nebula-Position", "")
    return Parked(
        source=source,
        key=key,
        subject=visible(said("Nebula-Subject", recorded.subject)),
        position=int(position) if position.isascii() and position.isdigit() and len(position) < 19 else 0,
        error=visible(said("Nebula-Error", "not a record of a parked message"))[:MOST_ERROR],
        time=recorded.stored_at,
        size=len(recorded.body),
        data_base64=base64.b64encode(recorded.body).decode() if len(recorded.body) <= MOST_BODY else None,
    )


def visible(text: str) -> str:
    """The text with what UTF-8 cannot carry replaced."""
    return text.encode(errors="replace").decode()


class Refused:
    """Messages of the log that a reader did not take in, until they are parked. Reading does not wait for that."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[Recorded, str]] = asyncio.Queue()

    def put(self, recorded: Recorded, reason: str) -> None:
        self._waiting.put_nowait((recorded, reason))

    async def run(self, parking: Parking) -> None:
        """Park them, for ever; while the bus is away they wait."""
        while True:
            recorded, reason = await self._waiting.get()
            if not await self._parked(parking, recorded, reason):
                self.put(recorded, reason)
                await asyncio.sleep(AGAIN)

    async def _parked(self, parking: Parking, recorded: Recorded, reason: str) -> bool:
        try:
            await parking.park_message(recorded, reason)
        except Unavailable as error:
            log.warning("message not parked yet", position=recorded.position, error=str(error))
            return False
        return True
