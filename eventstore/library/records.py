"""The messages in which the records of an `eventsourcing` application are stored.

Each record is one message. Its subject names the aggregate: `<prefix>.events.<originator id>`,
`<prefix>.snapshots.<…>`, `<prefix>.tracking.<application name>`. Its headers are those of CloudEvents, with version,
topic and the digest of the previous record. Its body is the state that the application's mapper made.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

from eventsourcing.persistence import DataError, Notification, StoredEvent, Tracking

from eventstore.log.envelope import GENESIS, Recorded
from eventstore.log.jetstream import Message
from eventstore.log.received import EXPECTED, own
from runtime.bus.header_text import decoded, encoded

HIGHEST = "ce-highest"
"""The highest version so far, in a snapshot that was stored after one of a later version."""


class Order(Enum):
    """The rule for the versions on one subject."""

    #: events: each version one more than the last, the first one 0 or 1
    NEXT = "next"
    #: tracking: upwards, with gaps
    UPWARDS = "upwards"
    #: snapshots: any, each once
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Record:
    """A record to store as one message."""

    subject: str
    order: Order
    name: str
    version: int
    topic: str
    state: bytes
    id_type: str


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of a subject, which an append follows: the highest version (-1: none), and position and digest of the
    last message.
    """

    version: int = -1
    position: int = 0
    digest: str = GENESIS

    @classmethod
    def of(cls, last: Recorded) -> "Tip":
        return cls(highest(last), last.position, last.digest)


@dataclass(frozen=True, slots=True)
class Names:
    """The subjects of one kind of an application's records: `events` or `snapshots`."""

    prefix: str
    kind: str

    @property
    def order(self) -> Order:
        return Order.NEXT if self.kind == "events" else Order.ANY

    @property
    def filter(self) -> str:
        """All records of this kind."""
        return f"{self.prefix}.{self.kind}.*"

    @property
    def stream_subjects(self) -> list[str]:
        """The subjects of the stream. That of the events has tracking records too, so that both fit in one batch."""
        return [self.filter, *([f"{self.prefix}.tracking.*"] if self.kind == "events" else [])]

    def of(self, originator_id: UUID | str) -> str:
        return f"{self.prefix}.{self.kind}.{_token(str(originator_id), 'originator id')}"

    def tracking(self, application: str) -> str:
        return f"{self.prefix}.tracking.{_token(application, 'application name')}"


def record_of(names: Names, event: StoredEvent) -> Record:
    subject = names.of(event.originator_id)
    if event.originator_version < 0:
        raise DataError(f"version {event.originator_version} of {subject}: versions begin with 0 or 1")
    return Record(
        subject,
        names.order,
        name=str(event.originator_id),
        version=event.originator_version,
        topic=event.topic,
        state=event.state,
        id_type="uuid" if isinstance(event.originator_id, UUID) else "text",
    )


def tracking_record(names: Names, tracking: Tracking) -> Record:
    return Record(
        names.tracking(tracking.application_name),
        Order.UPWARDS,
        name=tracking.application_name,
        version=tracking.notification_id,
        topic="tracking",
        state=json.dumps({"notification_id": tracking.notification_id}).encode(),
        id_type="text",
    )


def message(record: Record, tip: Tip, stream: str, time: datetime, *, first: bool) -> tuple[Message, Tip]:
    """The record as a message that follows a tip, and the tip after it. `first`: it is the first of its subject in the
    batch.
    """
    prefix, kind, _ = record.subject.rsplit(".", 2)
    headers = {
        "ce-specversion": "1.0",
        "ce-id": f"{record.name}:{record.version}",
        "ce-type": encoded(record.topic),
        "ce-source": f"/{prefix}/{kind}",
        "ce-time": time.isoformat(),
        "ce-aggregateversion": str(record.version),
        "ce-idtype": record.id_type,
        "ce-prevhash": tip.digest,
        "content-type": "application/octet-stream",
    }
    if record.version < tip.version:
        headers[HIGHEST] = str(tip.version)
    headers["Nats-Msg-Id"] = f"{record.subject}:{record.version}"
    headers["Nats-Expected-Stream"] = stream
    if first:
        headers[EXPECTED] = str(tip.position)
    made = Message(record.subject, headers, record.state)
    return made, Tip.of(placed(made, tip.position))


def placed(made: Message, position: int) -> Recorded:
    """The message as stored at a position."""
    return Recorded(position, made.subject, own(made.headers), made.body, datetime.now(UTC))


def highest(recorded: Recorded) -> int:
    """The highest version up to here."""
    return int(recorded.headers.get(HIGHEST, recorded.version))


def stored(recorded: Recorded) -> StoredEvent:
    return StoredEvent(**_fields(recorded))


def notification(recorded: Recorded) -> Notification:
    return Notification(id=recorded.position, **_fields(recorded))


def topic(recorded: Recorded) -> str:
    return decoded(recorded.type)


def _fields(recorded: Recorded) -> dict[str, Any]:
    name = recorded.subject.rsplit(".", 1)[-1]
    return {
        "originator_id": UUID(name) if recorded.headers["ce-idtype"] == "uuid" else name,
        "originator_version": recorded.version,
        "topic": topic(recorded),
        "state": recorded.body,
    }


def _token(value: str, what: str) -> str:
    """The value, if it can be a token of a subject. Raises DataError."""
    if not 1 <= len(value) <= 256 or not all("!" <= c <= "~" and c not in ".*>" for c in value):
        raise DataError(
            f"{value!r} cannot be an {what}: it becomes part of a NATS subject, so use 1 to 256 visible ASCII "
            "characters without '.', '*', '>' and space"
        )
    return value
