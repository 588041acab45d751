"""The messages in the log: CloudEvents 1.0 in NATS binary mode, chained per aggregate.

Each event of an aggregate carries the digest of the one before it (`ce-prevhash`; 64 zeros in the first). The digest
covers subject, all `ce-` headers and the body, so no event of an aggregate can be changed, dropped or moved without
every later one disagreeing.
"""

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json

from domain.base import Event, optional
from eventstore.log.layout import layout
from eventstore.log.upcast import TYPE_VERSION, opened
from runtime import subjects
from runtime.bus.header_text import decoded, encoded

GENESIS = "0" * 64
"""The previous digest of an aggregate's first event."""


_VERSION = re.compile(r"0|[1-9][0-9]{0,17}")
_OWN_MEMBERS = frozenset({"", "data", "data_base64", "datacontenttype", "aggregateversion"})
"""Members of the JSON format that are in no header."""
_BOUNDLESS = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{300}")
"""What a parser may take for an infinite number, which cannot be shown as JSON. Many UUIDs look so too."""


class Ref(NamedTuple):
    """Names one aggregate. `project` is `system` for what no project owns."""

    project: str
    kind: str
    id: str

    @property
    def subject(self) -> str:
        return subjects.event(self.project, self.kind, self.id)


@dataclass(frozen=True, slots=True)
class Context:
    """Who caused an event, and by which request. All of it is in the event's headers."""

    actor: str
    credential: str | None = None
    request: str | None = None
    operation: str | None = None
    causation: str | None = None
    traceparent: str | None = None


#: The headers that say a context, and its field that each of them is.
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
    """Subject and header block of a message, byte by byte."""

    subject: bytes
    block: bytes


@dataclass(frozen=True)
class Recorded:
    """One message as it is stored in the log: an event, unless the judge (`judge.py`) says otherwise.

    `position` is its stream sequence; `stored_at` the server's clock. Anybody may have written it, so every property
    may raise KeyError or ValueError until the message is judged; only `moment` and `digest` never do. `raw` is there
    where subject and headers do not tell all bytes: then the message is no event.
    """

    position: int
    subject: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    stored_at: datetime
    raw: "Raw | None" = field(default=None, repr=False, compare=False)
    ours: bool = field(default=False, repr=False, compare=False)
    """Whether this process appended it: then it has the shape of an event."""

    def tells_the_same(self, other: "Recorded") -> bool:
        """Whether two messages have the same bytes; the time of storing may differ."""
        mine = (self.position, self.subject, self.body, self.headers, self.raw)
        return mine == (other.position, other.subject, other.body, other.headers, other.raw)

    @cached_property
    def ref(self) -> Ref:
        return ref_of(self.subject)

    @property
    def id(self) -> str:
        return self.headers["ce-id"]

    @property
    def type(self) -> str:
        return self.headers["ce-type"]

    @property
    def version(self) -> int:
        return int(self.headers["ce-aggregateversion"])

    @property
    def previous(self) -> str:
        return self.headers["ce-prevhash"]

    @cached_property
    def time(self) -> datetime:
        """When it was decided."""
        return datetime.fromisoformat(self.headers["ce-time"])

    @property
    def moment(self) -> datetime:
        """When it was decided; when it was stored, for a message that does not say. In UTC: Postgres refuses zones that
        Python reads.
        """
        try:
            decided = self.time
        except (KeyError, ValueError):
            return self.stored_at
        if decided.tzinfo is None or not 1970 <= decided.year < 9999:
            return self.stored_at
        return decided.astimezone(UTC)

    @cached_property
    def context(self) -> Context:
        said = map(self.headers.get, _CONTEXT)
        actor, *rest = [decoded(value) if value is not None else None for value in said]
        return Context(actor or "", *rest)

    @cached_property
    def digest(self) -> str:
        return digest(self.subject, self.headers, self.body)

    @cached_property
    def event(self) -> Event:
        """The typed event, in the newest version of its type; `Foreign` where this program does not know it."""
        return opened(self.headers, self.body)

    def cloud_event(self) -> dict[str, Any]:
        """The message in CloudEvents' JSON format, with its position and digest; what is no event, as it came.

        Attributes are sorted by name. What a caller may have written is decoded, as the format has it. What CloudEvents
        requires is there, whatever the message says.
        """
        said = {name[3:]: _said(name, value) for name, value in self.headers.items() if name.startswith("ce-")}
        required = {"specversion": "1.0", "id": f"position:{self.position}", "type": "", "source": ""}
        whole = {**required, **{name: value for name, value in said.items() if name not in _OWN_MEMBERS}}
        attributes: dict[str, Any] = dict(sorted(whole.items()))
        attributes |= {"position": self.position, "subject": self.subject, "digest": self.digest}
        try:
            if not _VERSION.fullmatch(said.get("aggregateversion", "")):
                raise ValueError("not one of ours, on a subject of ours")
            attributes["aggregateversion"] = self.version
            data = from_json(self.body, allow_inf_nan=False)
            if _BOUNDLESS.search(self.body) and boundless(data):
                raise ValueError("JSON has no infinity")
        except ValueError:
            return {**attributes, "data_base64": base64.b64encode(self.body).decode()}
        return {**attributes, "datacontenttype": "application/json", "data": data}


def appended(position: int, ref: Ref, headers: Mapping[str, str], body: bytes, event: Event) -> Recorded:
    """A message that this process has just stored: what was put into it need not be read from it again.

    But for an event that its reader signs with the actor of the headers, where that is not done yet.
    """
    recorded = Recorded(position, ref.subject, headers, body, datetime.now(UTC), ours=True)
    known = vars(recorded)
    known["ref"] = ref
    if not event.SIGNED or optional(event, "created_by") == headers["ce-actor"]:
        known["event"] = event
    if (at := optional(event, "at")) is not None:
        known["time"] = at
    return recorded


@lru_cache(maxsize=4096)
def ref_of(subject: str) -> Ref:
    """The aggregate that a subject names; ValueError for what is no subject of an event."""
    return Ref(*subjects.parse_event(subject))


class Address(NamedTuple):
    """The header values that all events of an aggregate share."""

    ref: Ref
    source: str
    id_before_version: str


@lru_cache(maxsize=4096)
def address(subject: str) -> Address:
    """What events on this subject have to say; ValueError where it is no subject of an event."""
    ref = ref_of(subject)
    _ = ref.subject
    return Address(ref, f"/projects/{ref.project}/{ref.kind}s/{ref.id}", f"{ref.kind}.{ref.id}:")


def _said(header: str, value: str) -> str:
    return decoded(value) if header in _CONTEXT else value


def boundless(value: Any) -> bool:
    """Whether a number in what was read from JSON was too large for a float, and so became infinite."""
    match value:
        case float():
            return math.isinf(value)
        case dict():
            return any(boundless(each) for each in value.values())
        case list():
            return any(boundless(each) for each in value)
        case _:
            return False


def digest(subject: str, headers: Mapping[str, str], body: bytes) -> str:
    """SHA-256, in hex, of subject, `ce-` headers (sorted by name, one `name: value` line each) and body."""
    found = layout(tuple(headers))
    text = found.text % (subject, *map(headers.__getitem__, found.digested))
    return hashlib.sha256(text.encode(errors="replace") + body).hexdigest()


def seal(ref: Ref, version: int, previous: str, event: Event, context: Context) -> tuple[dict[str, str], bytes]:
    """The headers and the body of an event about to be appended."""
    at: datetime = optional(event, "at") or datetime.now(UTC)
    operation = optional(event, "operation") or context.operation
    of_some = (
        (TYPE_VERSION, str(event.VERSION) if event.VERSION > 1 else None),
        ("ce-credential", context.credential),
        ("ce-requestid", context.request),
        ("ce-operationid", operation),
        ("ce-causationid", context.causation),
        ("ce-traceparent", context.traceparent),
    )
    headers = {
        "ce-specversion": "1.0",
        "ce-id": f"{ref.kind}.{ref.id}:{version}",
        "ce-type": event.TOPIC,
        "ce-source": f"/projects/{ref.project}/{ref.kind}s/{ref.id}",
        "ce-time": at.isoformat(),
        "ce-aggregateversion": str(version),
        "ce-actor": encoded(context.actor) or "?",
        "ce-prevhash": previous,
        "content-type": "application/json",
        **{name: encoded(value) for name, value in of_some if value},
    }
    return headers, event.__pydantic_serializer__.to_json(event, exclude_none=True)
