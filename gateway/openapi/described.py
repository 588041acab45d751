"""Parameters and headers in the OpenAPI document: types, bounds, allowed values (parsed by `http/parameters.py`)."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from domain import patterns
from domain.base import LABELS_SCHEMA, LINE_PATTERN
from domain.guest_usage import MOST_POINTS
from domain.image import ImagePhase
from domain.kinds import KINDS, NAMES
from domain.operation import Status
from domain.spellings import UUID_PATTERN
from domain.vm import Phase
from eventstore.parking import parking
from gateway.http import parameters
from projections.pages import MOST
from runtime import subjects

Schema = dict[str, Any]

UUID: Schema = {"type": "string", "pattern": UUID_PATTERN}
SLUG: Schema = {"type": "string", "pattern": f"^{parameters.SLUG.pattern}$"}
VISIBLE: Schema = {"type": "string", "pattern": f"^{parameters.VISIBLE.pattern}$"}
ACTOR: Schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": LINE_PATTERN}
TOKEN: Schema = {"type": "string", "pattern": f"^{subjects.TOKEN.pattern}$"}
#: A pattern cannot express that it is from the previous page; the format does.
PAGE_TOKEN: Schema = {"type": "string", "pattern": f"^{parameters.PAGE_TOKEN.pattern}$", "format": "page-token"}
TICKET: Schema = {"type": "string", "pattern": f"^{parameters.TICKET.pattern}$"}
POSITION: Schema = {"type": "integer", "minimum": 0, "maximum": parameters.MOST_POSITION}
TIME: Schema = {"type": "string", "format": "date-time"}
MOMENT: Schema = {"anyOf": [POSITION, TIME]}
SECONDS: Schema = {"type": "string", "pattern": r"^(60(\.0{1,6})?|[0-5]?[0-9](\.[0-9]{1,6})?)s?$"}
TEXT: Schema = {"type": "string"}
LABEL: Schema = {
    "type": "string",
    "pattern": LABELS_SCHEMA["propertyNames"]["pattern"][:-1]
    + "(="
    + LABELS_SCHEMA["additionalProperties"]["pattern"].strip("^$").replace("*", "{0,255}")
    + ")?$",
}


def words(values: Iterable[str]) -> Schema:
    return {"type": "string", "enum": [str(value) for value in values]}


def listed(kind: str, values: type[StrEnum]) -> Schema:
    return {**words(values), "description": f"{kind} of which this is true"}


#: Path parameters. An invalid one names no resource: 404.
PATH: dict[str, Schema] = {
    **{kind: UUID if parameters.by_uuid(kind) else SLUG for kind in NAMES},
    **dict.fromkeys(("source", "key"), TOKEN),
    "event": {"type": "integer", "minimum": 1, "maximum": parameters.MOST_POSITION},
}

#: Query parameters, by their name. `parameters.Judge` checks them.
QUERY: dict[str, tuple[Schema, str]] = {
    "at": (MOMENT, "a log position or an RFC 3339 time, up to now: what is asked for as it was at that moment"),
    "min_position": (
        POSITION,
        "wait (at most 5 s) until the answer reflects this log position, which the log must have reached",
    ),
    "label": (LABEL, "`key`, or `key=value`: those with this label"),
    "limit": ({"type": "integer", "minimum": 1, "maximum": MOST}, "items on a page (100)"),
    "page_token": (PAGE_TOKEN, "next_page_token of the previous page, with the same filters"),
    "bytes": (
        {"type": "integer", "minimum": 1, "maximum": parameters.MOST_BYTES},
        f"maximum number of bytes of the answer ({parameters.DEFAULT_BYTES})",
    ),
    "cursor": (
        {"type": "string", "pattern": f"^{parameters.CURSOR.pattern}$"},
        "the header Nebula-Cursor of the previous answer: only what follows after it",
    ),
    "since": (
        {"type": "string", "pattern": f"^({parameters.SINCE.pattern})$"},
        "how far the series goes back, such as 6h, 90m or 300s: at most a day (1h)",
    ),
    "points": (
        {"type": "integer", "minimum": 1, "maximum": MOST_POINTS},
        f"maximum number of points of the series ({parameters.DEFAULT_POINTS})",
    ),
    "force": (words(("true", "false")), "true takes the console over from the user who is connected"),
    "wait": (SECONDS, "seconds to wait at most, such as 30s"),
    "after": (POSITION, "a log position that the log has reached: only later events"),
    "ticket": (
        TICKET,
        "from POST /v1/tickets, in place of a token: for browsers, whose EventSource sends no Authorization",
    ),
    "from": (MOMENT, "a log position or a time, up to now"),
    "to": (MOMENT, "a log position or a time, up to now, inclusive"),
    "order": (words(("asc", "desc")), "asc: the oldest first (the default); desc: the newest first"),
    "buckets": (
        {"type": "integer", "minimum": 1, "maximum": parameters.MOST_BUCKETS},
        f"maximum number of ranges ({parameters.MOST_BUCKETS})",
    ),
    "page": (TEXT, "a page of the console to come back to, such as /console/projects/web/vms"),
    "code": (TEXT, "what the issuer gives the token for"),
    "state": (TEXT, "what the issuer got at the beginning"),
    "error": (TEXT, "why the issuer gives no token"),
    "id": (VISIBLE, "events of the resource with this id, of any kind"),
    "request": (VISIBLE, "events of the call with this X-Request-Id"),
    "type": (VISIBLE, "an event type, such as VmStarted"),
    "kind": (VISIBLE, "a kind of resource"),
    "actor": (ACTOR, "events caused by this actor"),
    **{
        name: (VISIBLE, f"those of this {name}")
        for name in (
            *("project", "vm", "tag", "name", "node", "region", "operation", "source"),
            *("distribution", "release", "architecture", "address", "credential", "principal"),
        )
    },
}

#: Parameters that have another meaning in one path.
QUERY_OF: dict[tuple[str, str], Schema] = {
    ("/v1/projects/{project}/vms", "phase"): words(Phase),
    ("/v1/vms", "phase"): words(Phase),
    ("/v1/images", "phase"): words(ImagePhase),
    ("/v1/operations", "status"): words(Status),
    ("/v1/parked", "status"): words(parking.Status),
    ("/v1/events", "kind"): words(NAMES),
    ("/v1/diff", "kind"): words(KINDS),
}
NOW = words(("now",))

REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "the id of this call in logs and events: 1 to 128 visible ASCII characters",
    "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "a repeat of the call with the same key gets the operation of the first call, and changes nothing",
    "schema": VISIBLE,
}
LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "the last position that the reader has received: only what follows after it",
    "schema": POSITION,
}


def in_path(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": PATH[name]} for name in names]


def in_query(path: str, name: str) -> dict[str, Any]:
    """A query parameter of a path. Raises KeyError if it has no description here."""
    described: dict[str, Any] = {"name": name, "in": "query", "required": False}
    if path.endswith("/feed") and name == "from":
        return {**described, "schema": NOW, "description": "only events from now on; not together with after"}
    if (path, name) in QUERY_OF:
        return {**described, "schema": QUERY_OF[path, name]}
    schema, text = QUERY[name]
    return {**described, "schema": schema, "description": text}


def positions(path: str, names: Iterable[str]) -> tuple[str, ...]:
    """The query parameters of a path that hold a log position or a time."""
    return tuple(name for name in names if in_query(path, name)["schema"] in (POSITION, MOMENT))


def judge(path: str, names: Iterable[str]) -> parameters.Judge:
    """The check of the query of a path, made from its description."""
    known = {name: in_query(path, name)["schema"] for name in names}
    return parameters.Judge(known, {name: schema["enum"] for name, schema in known.items() if "enum" in schema})


def header(schema: Schema, text: str, *, always: bool = True) -> dict[str, Any]:
    return {"description": text, "required": always, "schema": schema}


ECHOED = {"X-Request-Id": header({"type": "string", "minLength": 1, "maxLength": 128}, "the id of this call")}
#: The headers of every answer of the API itself.
ANSWERED = {
    **ECHOED,
    "Nebula-Position": header(POSITION, "the log position that the answer reflects"),
}
OF_A_COMMAND = {
    **ANSWERED,
    "Location": header({"type": "string", "pattern": f"^/v1/operations/{patterns.UUID}$"}, "the operation"),
    "Idempotent-Replayed": header(
        words(("true",)), "this is the operation of an earlier call with the same key", always=False
    ),
}
OF_A_CONSOLE = {
    **ANSWERED,
    "Nebula-Cursor": header(
        {"type": "string", "pattern": f"^{parameters.CURSOR.pattern}$"}, "the position at which the answer ends"
    ),
    "Nebula-More": header(words(("true", "false")), "whether more is available already"),
}
