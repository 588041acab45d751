"""Query parameters and headers. An invalid one is refused by its name (Problem, 400)."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from enum import StrEnum
from functools import partial

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.types import Scope

from domain import patterns
from domain.base import Actor, label_key, label_value
from domain.guest_usage import MOST_POINTS
from domain.kind import Id
from domain.kinds import KINDS
from gateway.http.problems import Problem, invalid_parameter
from projections import times
from projections.pages import MOST
from runtime import subjects

DEFAULT_LIMIT = 100
MOST_WAIT = 60.0
MOST_POSITION = 2**63 - 1
#: Bytes of a console log in one answer: the default, and the maximum.
DEFAULT_BYTES, MOST_BYTES = 64 * 1024, 8 * 1024 * 1024
#: The maximum number of ranges in which events are counted.
MOST_BUCKETS = 200
#: Points of a series in one answer, if not given.
DEFAULT_POINTS = 120
#: The parameters that may differ between the pages of one list.
PAGING = frozenset({"page_token", "limit", "wait", "min_position", "after"})

#: Normalises the name of an actor.
ACTOR: TypeAdapter[str] = TypeAdapter(Actor)
SLUG = re.compile(patterns.SLUG)
UUID = re.compile(patterns.UUID)
_DIGITS = re.compile(r"[0-9]{1,19}")
_WAIT = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,6})?)s?")
_BYTES = re.compile(r"[0-9]{1,8}")
VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")
PAGE_TOKEN = re.compile(r"([0-9]{1,19})-([0-9a-f]{16})")
POINTS = re.compile(r"[1-9][0-9]?|[1-4][0-9]{2}|500")
#: Up to a day: in hours, in minutes, or in seconds.
SINCE = re.compile(
    r"([1-9]|1[0-9]|2[0-4])h"
    r"|([1-9][0-9]{0,2}|1[0-3][0-9]{2}|14[0-3][0-9]|1440)m"
    r"|([1-9][0-9]{0,3}|[1-7][0-9]{4}|8[0-5][0-9]{3}|86[0-3][0-9]{2}|86400)s"
)
TICKET = re.compile(r"[A-Za-z0-9_-]{43}")
CURSOR = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


def only(request: Request, known: frozenset[str]) -> None:
    """Refuse unknown parameters, and parameters that are given twice."""
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            offered = ", ".join(sorted(known)) or "none"
            raise invalid_parameter(name[:64], f"this call has no such parameter (it has: {offered})")
        if name in seen:
            raise invalid_parameter(name, "given more than once")
        seen.add(name)


def digits(name: str, text: str) -> int:
    """Parse a log position."""
    if not _DIGITS.fullmatch(text) or int(text) > MOST_POSITION:
        raise invalid_parameter(name, "has to be a log position: a whole number from 0")
    return int(text)


def position(request: Request, name: str) -> int | None:
    """A log position; None if not given."""
    text = request.query_params.get(name)
    return None if text is None else digits(name, text)


def moment(request: Request, name: str) -> int | datetime | None:
    """A log position or a time; None if not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if text.isdigit():
        return digits(name, text)
    try:
        return times.parse(text)
    except ValueError as error:
        raise invalid_parameter(name, f"neither a log position nor a time: {error}") from error


def limit(request: Request) -> int:
    """The maximum number of items of a page."""
    text = request.query_params.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= MOST:
        raise invalid_parameter("limit", f"has to be a whole number from 1 to {MOST}")
    return int(text)


def wait(request: Request) -> float:
    """Seconds to wait: `30s` or `30`; 0 if not given."""
    if not request.scope["query_string"]:
        return 0.0
    text = request.query_params.get("wait")
    if text is None:
        return 0.0
    found = _WAIT.fullmatch(text)
    if found is None or float(found[1]) > MOST_WAIT:
        raise invalid_parameter("wait", f"has to be seconds from 0 to {MOST_WAIT:.0f}, such as 30s")
    return float(found[1])


def since(request: Request) -> float:
    """The number of seconds that a series goes back: `6h`, `90m` or `300s`; at most a day, and an hour if not given."""
    found = SINCE.fullmatch(request.query_params.get("since", "1h"))
    if found is None:
        raise invalid_parameter("since", "has to be a duration up to a day, such as 6h, 90m or 300s")
    hours, minutes, seconds = (int(text or 0) for text in found.groups())
    return 3600.0 * hours + 60.0 * minutes + seconds


def points(request: Request) -> int:
    """The maximum number of points of a series."""
    text = request.query_params.get("points", str(DEFAULT_POINTS))
    if not POINTS.fullmatch(text):
        raise invalid_parameter("points", f"has to be a whole number from 1 to {MOST_POINTS}")
    return int(text)


def choice(request: Request, name: str, values: type[StrEnum]) -> str | None:
    """One of a set of words; None if not given."""
    text = request.query_params.get(name)
    if text is not None and text not in set(values):
        raise invalid_parameter(name, f"has to be one of {', '.join(values)}")
    return text


def word(request: Request, name: str) -> str | None:
    """A text to search for (1 to 255 visible characters); None if not given. A UUID may be in upper case."""
    text = request.query_params.get(name)
    if text is not None and not VISIBLE.fullmatch(text):
        raise invalid_parameter(name, "has to be 1 to 255 visible ASCII characters")
    return text.lower() if text is not None and by_uuid(name) else text


def actor(request: Request) -> str | None:
    """The actor to search for, if one is given, in the spelling of the log."""
    text = request.query_params.get("actor")
    if text is None:
        return None
    try:
        return ACTOR.validate_python(text)
    except ValidationError as error:
        raise invalid_parameter("actor", "has to be 1 to 255 printable characters") from error


def label(request: Request) -> str | None:
    """A label to search for (`key`, or `key=value`); None if not given."""
    text = request.query_params.get("label")
    if text is None:
        return None
    text = unicodedata.normalize("NFC", text)  # as labels are stored
    key, _, value = text.partition("=")
    try:
        label_key(key)
        label_value(value)
    except ValueError as error:
        raise invalid_parameter("label", str(error)) from error
    return text


def token(request: Request, name: str, key: int | None) -> str | None:
    """The opaque token for the page of list `name` after `key`, for this query only."""
    return None if key is None else f"{key}-{query(request, name)}"


def query(request: Request, name: str) -> str:
    """A digest of the query: the list, the path and the filters."""
    filters = sorted((name, text) for name, text in request.query_params.items() if name not in PAGING)
    return hashlib.sha256(repr((name, request.scope["path"], filters)).encode()).hexdigest()[:16]


def page_token(request: Request, name: str | None = None) -> int | None:
    """The key in a page token; None if not given. Without the `name` of a list, only its form is checked."""
    text = request.query_params.get("page_token")
    if text is None:
        return None
    found = PAGE_TOKEN.fullmatch(text)
    if found is None or int(found[1]) > MOST_POSITION or (name is not None and found[2] != query(request, name)):
        raise invalid_parameter(
            "page_token", "not a token of this list with these filters; use next_page_token of the previous page"
        )
    return int(found[1])


def cursor(request: Request) -> str | None:
    """The position at which to continue a console log, if given."""
    text = request.query_params.get("cursor")
    if text is not None and not CURSOR.fullmatch(text):
        raise invalid_parameter("cursor", "has to be the header Nebula-Cursor of the previous answer")
    return text


def ticket(request: Request) -> None:
    """Refuse a ticket of another form, also beside a token. Raises Problem (400)."""
    text = request.query_params.get("ticket")
    if text is not None and not TICKET.fullmatch(text):
        raise invalid_parameter("ticket", "has to be the ticket of an answer to POST /v1/tickets")


def size(request: Request) -> int:
    """The maximum number of bytes of an answer."""
    text = request.query_params.get("bytes")
    if text is None:
        return DEFAULT_BYTES
    if not _BYTES.fullmatch(text) or not 1 <= int(text) <= MOST_BYTES:
        raise invalid_parameter("bytes", f"has to be a whole number from 1 to {MOST_BYTES}")
    return int(text)


def buckets(request: Request) -> int:
    """The maximum number of ranges in which events are counted."""
    text = request.query_params.get("buckets")
    if text is None:
        return MOST_BUCKETS
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= MOST_BUCKETS:
        raise invalid_parameter("buckets", f"has to be a whole number from 1 to {MOST_BUCKETS}")
    return int(text)


def flag(request: Request, name: str) -> bool:
    """A yes or no, if given."""
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise invalid_parameter(name, "has to be true or false")
    return text == "true"


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key; None if not given."""
    text = header(request.scope, "Idempotency-Key")
    if text is not None and not VISIBLE.fullmatch(text):
        raise invalid_parameter("Idempotency-Key", "has to be 1 to 255 visible ASCII characters")
    return text


def header(scope: Scope, name: str) -> str | None:
    """A header that may be given once. Raises Problem."""
    lowered = name.lower().encode()
    given = [value for each, value in scope["headers"] if each == lowered]
    if len(given) > 1:
        raise invalid_parameter(name, "given more than once")
    return given[0].decode("latin-1") if given else None


def by_uuid(kind: str) -> bool:
    """Whether a UUID names resources of a kind. Operations have no kind of their own."""
    return kind == subjects.OPERATION or (kind in KINDS and KINDS[kind].id is Id.UUID)


def path_id(request: Request, kind: str) -> str:
    """The id of a `kind` in the path. An invalid id names no resource: raises Problem (404)."""
    text: str = request.path_params[kind]
    pattern = UUID if by_uuid(kind) else SLUG
    if pattern is UUID:
        text = text.lower()
    if not pattern.fullmatch(text):
        raise not_found(kind, text)
    return text


def not_found(kind: str, id_: str) -> Problem:
    shown = id_ if len(id_) <= 80 and id_.isprintable() else id_[:80].encode("unicode_escape").decode()
    hint = "; ids are in lower case" if shown != shown.lower() else ""
    return Problem(404, f"{kind}_not_found", f"there is no {kind} {shown}{hint}", [(kind, "not found")])


#: The check of each query parameter, before anything is looked up. Other parameters are checked by `word`.
_JUDGES: Mapping[str, Callable[[Request], object]] = {
    "limit": limit,
    "wait": wait,
    "label": label,
    "actor": actor,
    "page_token": page_token,
    "bytes": size,
    "buckets": buckets,
    "cursor": cursor,
    "since": since,
    "points": points,
    "force": partial(flag, name="force"),
    "ticket": ticket,
    **{name: partial(position, name=name) for name in ("min_position", "after")},
    **{name: partial(moment, name=name) for name in ("at", "from", "to")},
}


class Judge:
    """Checks the query of a call: its parameters, and the allowed words of some of them."""

    def __init__(self, known: Collection[str], words: Mapping[str, Collection[str]]) -> None:
        self._known = frozenset(known)
        self._words = words

    def __call__(self, request: Request) -> None:
        """Refuse invalid parameters, before any resource is looked up. Raises Problem (400)."""
        if not request.scope["query_string"]:
            return
        only(request, self._known)
        for name, text in request.query_params.items():
            words = self._words.get(name)
            if words is None:
                _JUDGES.get(name, partial(word, name=name))(request)
            elif text not in words:
                raise invalid_parameter(name, f"has to be one of {', '.join(words)}")
        if "at" in request.query_params and "wait" in request.query_params:
            raise invalid_parameter("wait", "cannot be given together with at: what has passed does not change")
