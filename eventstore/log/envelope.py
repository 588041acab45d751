"""The messages in the log: CloudEvents 1.0 in NATS binary mode, chained per aggregate.

Each event has the digest of the aggregate's previous event (`ce-prevhash`; 64 zeros in the first). The digest covers
the subject, all `ce-` headers and the body. So if an event is changed, removed or moved, the later ones do not fit any
more.
"""

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json

from domain.base import Event, optional
from eventstore.log.digest import digest
from eventstore.log.macs import MAC, EventKeys, Fault
from eventstore.log.upcast import TYPE_VERSION, opened
from runtime import subjects
from runtime.bus.header_text import decoded, encoded
from runtime.lazy import lazy
from runtime.text.iso import iso

GENESIS = "0" * 64
"""The previous digest of an aggregate's first event."""


_VERSION = re.compile(r"0|[1-9][0-9]{0,17}")
_OWN_MEMBERS = frozenset({"", "data", "data_base64", "datacontenttype", "aggregateversion", "fault"})
"""Members of CloudEvents' JSON format that no header may set."""
_HUGE_NUMBER = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{300}")
"""Text that a parser may read as an infinite number, which JSON does not have. Many UUIDs match too."""


class Ref(NamedTuple):
    """The identity of one aggregate. `project` is `system` for aggregates outside of projects."""

    project: str
    kind: str
    id: str

    @property
    def subject(self) -> str:
        return subjects.event(self.project, self.kind, self.id)


@dataclass(frozen=True, slots=True)
class Context:
    """Who caused an event, and by which request. All fields are stored in the event's headers."""

    actor: str
    credential: str | None = None
    request: str | None = None
    operation: str | None = None
    causation: str | None = None
    traceparent: str | None = None


#: The fields of a Context by header.
_CONTEXT = {
    "ce-actor": "actor",
    "ce-credential": "credential",
    "ce-requestid": "request",
    "ce-operationid": "operation",
    "ce-causationid": "causation",
    "ce-traceparent": "traceparent",
}


@dataclass(frozen=True, slots=True)
class Raw:
    """The subject and the header block of a message as bytes."""

    subject: bytes
    block: bytes


@dataclass(frozen=True, init=False)
class Recorded:
    """One message stored in the log: an event, unless the judge (`judge.py`) decides that it is malformed.

    `position`: its stream sequence; `stored_at`: by the server's clock. Anybody on the bus may have written it, so each
    property may raise KeyError or ValueError until the message is judged; only `moment` and `digest` never raise. `raw`
    is set if `subject` and `headers` cannot represent all bytes; such a message is malformed.
    """

    position: int
    subject: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    stored_at: datetime
    raw: "Raw | None" = field(default=None, repr=False, compare=False)
    ours: bool = field(default=False, repr=False, compare=False)
    """Whether this process appended it, so that its form need not be checked."""
    event_keys: EventKeys | None = field(default=None, repr=False, compare=False)
    """Checks its MAC; None if this reader checks no MACs."""

    def __init__(
        self,
        position: int,
        subject: str,
        headers: Mapping[str, str],
        body: bytes,
        stored_at: datetime,
        raw: "Raw | None" = None,
        ours: bool = False,
        event_keys: EventKeys | None = None,
    ) -> None:
        known = self.__dict__  # there is one for each message: a frozen dataclass calls a function for each field
        known["position"] = position
        known["subject"] = subject
        known["headers"] = headers
        known["body"] = body
        known["stored_at"] = stored_at
        known["raw"] = raw
        known["ours"] = ours
        known["event_keys"] = event_keys

    def same_bytes(self, other: "Recorded") -> bool:
        """Whether two messages have the same position and bytes; `stored_at` may differ."""
        mine = (self.position, self.subject, self.body, self.headers, self.raw)
        return mine == (other.position, other.subject, other.body, other.headers, other.raw)

    @lazy
    def ref(self) -> Ref:
        return ref_of(self.subject)

    @property
    def id(self) -> str:
        return self.headers["ce-id"]

    @lazy
    def type(self) -> str:
        return self.headers["ce-type"]

    @lazy
    def version(self) -> int:
        return int(self.headers["ce-aggregateversion"])

    @lazy
    def previous(self) -> str:
        return self.headers["ce-prevhash"]

    @lazy
    def time(self) -> datetime:
        """When it was decided."""
        return datetime.fromisoformat(self.headers["ce-time"])

    @property
    def moment(self) -> datetime:
        """When it was decided; `stored_at` if the message has no valid time. In UTC, because Postgres refuses some time
        zones that Python accepts.
        """
        try:
            decided = self.time
        except (KeyError, ValueError):
            return self.stored_at
        if decided.tzinfo is None or not 1970 <= decided.year < 9999:
            return self.stored_at
        return decided.astimezone(UTC)

    @lazy
    def context(self) -> Context:
        values = map(self.headers.get, _CONTEXT)
        actor, *rest = [decoded(value) if value is not None else None for value in values]
        return Context(actor or "", *rest)

    @property
    def operation(self) -> str | None:
        """The id of the operation that it belongs to."""
        return self.context.operation

    @property
    def actor(self) -> str:
        """Who caused it."""
        return self.context.actor

    @property
    def request(self) -> str | None:
        """The id of the request that caused it."""
        return self.context.request

    @lazy
    def digest(self) -> str:
        return digest(self.subject, self.headers, self.body)

    def fault(self) -> Fault | None:
        """Why it was not written by handlers; None if it was, or this reader checks no MACs."""
        if self.event_keys is None or self.ours:
            return None
        return self.event_keys.fault(self.position, self.digest, self.headers.get(MAC))

    @lazy
    def event(self) -> Event:
        """The typed event, in the newest version of its type; `Foreign` if this program does not know its type."""
        return opened(self.headers, self.body)

    def cloud_event(self) -> dict[str, Any]:
        """The message in CloudEvents' JSON format, with its position and digest. Malformed messages are allowed.

        Attributes are sorted by name. Percent-encoded headers are decoded. Attributes that CloudEvents requires are
        always present, also if the message lacks them. The body of a malformed message is base64. A message that
        handlers did not write has the attribute `fault`.
        """
        own = {name[3:]: _plain_value(name, value) for name, value in self.headers.items() if name.startswith("ce-")}
        required = {"specversion": "1.0", "id": f"position:{self.position}", "type": "", "source": ""}
        merged = {**required, **{name: value for name, value in own.items() if name not in _OWN_MEMBERS}}
        attributes: dict[str, Any] = dict(sorted(merged.items()))
        attributes |= {"position": self.position, "subject": self.subject, "digest": self.digest}
        fault = self.fault()
        try:
            if fault is not None:
                attributes["fault"] = fault.code
                raise ValueError(fault.reason)
            if not _VERSION.fullmatch(own.get("aggregateversion", "")):
                raise ValueError("no event of the platform")
            attributes["aggregateversion"] = self.version
            data = from_json(self.body, allow_inf_nan=False)
            if _HUGE_NUMBER.search(self.body) and has_infinity(data):
                raise ValueError("JSON has no infinity")
        except ValueError:
            return {**attributes, "data_base64": base64.b64encode(self.body).decode()}
        return {**attributes, "datacontenttype": "application/json", "data": data}


def appended(
    position: int,
    ref: Ref,
    subject: str,
    headers: Mapping[str, str],
    body: bytes,
    event: Event,
    known_digest: str | None = None,
) -> Recorded:
    """A message that this process has just stored. Its typed event and time are set, so they need not be parsed again.
    `known_digest`: its digest, if it was computed.

    The event is left out if a reader would set its `created_by` from the headers and the event does not have it yet.
    """
    recorded = Recorded(position, subject, headers, body, datetime.now(UTC), None, True)
    known = recorded.__dict__
    known["ref"] = ref
    if known_digest is not None:
        known["digest"] = known_digest
    if not event.SIGNED or optional(event, "created_by") == headers["ce-actor"]:
        known["event"] = event
    if (at := optional(event, "at")) is not None:
        known["time"] = at
    return recorded


@lru_cache(maxsize=4096)
def ref_of(subject: str) -> Ref:
    """The aggregate that a subject names. Raises ValueError if it is no subject of an event."""
    return Ref(*subjects.parse_event(subject))


class Address(NamedTuple):
    """The header values that are equal in all events of an aggregate."""

    ref: Ref
    source: str
    id_before_version: str


@lru_cache(maxsize=4096)
def address(subject: str) -> Address:
    """The header values that events on this subject must have. Raises ValueError if it is no subject of an event."""
    ref = ref_of(subject)
    _ = ref.subject
    return Address(ref, f"/projects/{ref.project}/{ref.kind}s/{ref.id}", f"{ref.kind}.{ref.id}:")


def _plain_value(header: str, value: str) -> str:
    return decoded(value) if header in _CONTEXT else value


def has_infinity(value: Any) -> bool:
    """Whether parsed JSON has a number that was too large for a float and became infinite."""
    match value:
        case float():
            return math.isinf(value)
        case dict():
            return any(has_infinity(each) for each in value.values())
        case list():
            return any(has_infinity(each) for each in value)
        case _:
            return False


def seal(ref: Ref, version: int, previous: str, event: Event, context: Context) -> tuple[dict[str, str], bytes]:
    """The headers and the body of an event to append."""
    project, kind, id_ = ref
    at: datetime = optional(event, "at") or datetime.now(UTC)
    operation = optional(event, "operation") or context.operation
    headers = {
        "ce-specversion": "1.0",
        "ce-id": f"{kind}.{id_}:{version}",
        "ce-type": event.TOPIC,
        "ce-source": f"/projects/{project}/{kind}s/{id_}",
        "ce-time": iso(at),
        "ce-aggregateversion": str(version),
        "ce-actor": encoded(context.actor) or "?",
        "ce-prevhash": previous,
        "content-type": "application/json",
    }
    if event.VERSION > 1:
        headers[TYPE_VERSION] = str(event.VERSION)
    if context.credential:
        headers["ce-credential"] = encoded(context.credential)
    if context.request:
        headers["ce-requestid"] = encoded(context.request)
    if operation:
        headers["ce-operationid"] = encoded(operation)
    if context.causation:
        headers["ce-causationid"] = encoded(context.causation)
    if context.traceparent:
        headers["ce-traceparent"] = encoded(context.traceparent)
    return headers, event.__pydantic_serializer__.to_json(event, exclude_none=True)
