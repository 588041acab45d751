"""The record of a parked message, and how it is read from the stream, in which anybody may have written."""

import base64
import binascii
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from eventstore.log.envelope import Recorded

MOST_BODY, MOST_HEADERS, MOST_ERROR = 64 * 1024, 16 * 1024, 500
"""Limits in bytes (of an error: in characters). Of a larger body only the size is stored."""

MOST_POSITION, MOST_COUNT = 2**63 - 1, 2**53
"""The maximum position of a stream, and the maximum number that all JSON parsers read exactly."""

MORE = "more"
"""The key of the record that counts the messages of a source for which there was no room."""


class Status(StrEnum):
    OPEN = "open"
    DROPPED = "dropped"
    RETRIED = "retried"


class Parked(BaseModel):
    """The record of one parked message: its source, its error, and whether somebody has dropped or retried it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: str
    key: str
    subject: str = Field(description="the subject of the message")
    position: int = Field(
        ge=0, le=MOST_POSITION, description="the message's position in its stream; 0 if it was not stored"
    )
    error: str
    time: AwareDatetime = Field(description="when it was parked")
    size: int = Field(default=0, ge=0, le=MOST_COUNT, description="bytes of the message's body")
    headers: dict[str, str] = Field(default_factory=dict)
    data_base64: str | None = Field(default=None, description="the body, if it is stored in the record")
    status: Status = Status.OPEN
    actor: str | None = Field(default=None, description="who closed the record")
    reason: str | None = None
    closed_at: AwareDatetime | None = None
    count: int = Field(
        default=1,
        ge=0,
        le=MOST_COUNT,
        description=f"number of messages; it is 1 unless the key is {MORE}",
    )

    @property
    def open(self) -> bool:
        return self.status is Status.OPEN

    @property
    def body(self) -> bytes | None:
        return base64.b64decode(self.data_base64) if self.data_base64 is not None else None


def record_of(recorded: Recorded) -> Parked:
    """The record in a message of the stream. For any other message, a record with an error that says so."""
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
    """A record for a message that an earlier version parked, or that somebody else stored there."""
    header = recorded.headers.get
    position = header("Nebula-Position", "")
    return Parked(
        source=source,
        key=key,
        subject=visible(header("Nebula-Subject", recorded.subject)),
        position=int(position) if position.isascii() and position.isdigit() and len(position) < 19 else 0,
        error=visible(header("Nebula-Error", "not a record of a parked message"))[:MOST_ERROR],
        time=recorded.stored_at,
        size=len(recorded.body),
        data_base64=base64.b64encode(recorded.body).decode() if len(recorded.body) <= MOST_BODY else None,
    )


def visible(text: str) -> str:
    """The text, with characters replaced that UTF-8 cannot encode."""
    return text.encode(errors="replace").decode()
