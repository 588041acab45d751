"""Decides whether a message is an event that may follow at its position. All readers of the log use this judge.

Anybody with access to the bus can store anything on a subject of the log, and it stays there for ever. A message that
the judge refuses is *malformed*: all readers ignore it, and judge later messages as if it did not exist. The decision
depends on the log and on the event keys alone, so all readers decide the same. Events of unknown types are accepted if
their headers are valid.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, StrEnum
from functools import cache
from operator import itemgetter
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from domain.base import Event, Foreign, optional
from domain.kinds import NAMES
from domain.patterns import SHA256
from eventstore.log.envelope import GENESIS, Address, Recorded, Ref, address
from eventstore.log.upcast import TYPE_VERSION
from runtime import subjects

S = TypeVar("S")

REQUIRED = ("ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "ce-aggregateversion", "ce-prevhash")
"""The headers that every event has."""
_required = itemgetter(*REQUIRED)

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_HEX = re.compile(SHA256)
_TYPE = re.compile(r"[!-~]{1,255}")
_FIRST_YEAR, _LAST_YEAR = 1970, 9990
_MOST = 2**63
_DEEPEST = 50
_ALWAYS_IN_BOUNDS = frozenset({type(None), str, bool, bytes})


@dataclass(frozen=True, slots=True)
class Malformed:
    """Why a message is no valid event at its position. `code`: see docs/integrity.md; `reason`: for people."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of one aggregate's history: version and digest of its last event (0 and zeros if it has none).

    `position`: of the last message on its subject, malformed or not; the server compares it with an append.
    `time`: when the last event was decided.
    """

    ref: Ref
    version: int = 0
    position: int = 0
    digest: str = GENESIS
    time: datetime | None = field(default=None, compare=False)

    def after(self, recorded: Recorded) -> "Tip":
        """The tip after one more event."""
        return Tip(self.ref, recorded.version, recorded.position, recorded.digest, recorded.time)

    def past(self, recorded: Recorded) -> "Tip":
        """The tip after a malformed message."""
        return replace(self, position=recorded.position)


def judge(recorded: Recorded, tip: Tip) -> Event | Malformed:
    """The event, if the message is one that may follow the tip."""
    return judge_after(recorded, tip.version, tip.digest)


def judge_after(recorded: Recorded, version: int, digest: str) -> Event | Malformed:
    """The event, if the message is one that may follow an event of this version and digest."""
    return shape(recorded) or follows(recorded, version, digest) or body(recorded)


def step(
    evolve: Callable[[S | None, Event], S | None], state: S | None, tip: Tip, recorded: Recorded
) -> tuple[S | None, Tip, Malformed | None]:
    """State and tip after one more message, and why it is malformed, if it is."""
    verdict = judge_after(recorded, tip.version, tip.digest)
    if isinstance(verdict, Malformed):
        return state, tip.past(recorded), verdict
    state, wrong = evolved(evolve, state, verdict)
    return state, tip.after(recorded), wrong


def evolved(
    evolve: Callable[[S | None, Event], S | None], state: S | None, event: Event
) -> tuple[S | None, Malformed | None]:
    """The state after an event. An event that `evolve` fails on stays in the history, but changes nothing."""
    try:
        return evolve(state, event), None
    except Exception as error:  # a bug in the rules; one event must not stop readers
        return state, Malformed("unapplied", f"the {named(event)} could not be applied: {first_line(error)}")


def shape(recorded: Recorded) -> Malformed | None:
    """Why subject and headers are malformed, or handlers did not write the message, without regard to other messages.

    None if they are valid.
    """
    if recorded.ours:
        return None
    headers = recorded.headers
    try:
        expected = address(recorded.subject)
    except ValueError as error:
        return Malformed("shape", f"the subject is not one of an event: {error}")
    if recorded.raw is not None:
        return Malformed("shape", "the headers are not plain text, or one of them occurs twice")
    try:
        values = _required(headers)
    except KeyError:
        values = ("",)
    if "" in values:
        return _missing_headers(headers)
    wrong = wrong_values(expected, values, headers.get(TYPE_VERSION))
    if wrong is not None:
        return wrong
    try:
        time = recorded.time
    except ValueError:
        return Malformed("shape", "ce-time is not a time")
    if not time_in_bounds(time):
        return Malformed("shape", f"ce-time has to be a time with its zone, between {_FIRST_YEAR} and {_LAST_YEAR}")
    fault = recorded.fault()
    return None if fault is None else Malformed(fault.code, fault.reason)


def wrong_values(expected: Address, values: Sequence[str], of_type: str | None) -> Malformed | None:
    """Why the values of the required headers (`REQUIRED`), or the version of the type, do not fit the subject."""
    spec, id_, type_, source, _, version, previous = values
    if not _NUMBER.fullmatch(version) or (of_type is not None and not _NUMBER.fullmatch(of_type)):
        return Malformed("shape", "a version in the headers is not a positive number")
    if spec != "1.0" or id_ != expected.id_before_version + version:
        return Malformed("shape", f"ce-specversion has to be 1.0, ce-id {expected.id_before_version}{version}")
    if source != expected.source:
        return Malformed("shape", "ce-source names another aggregate than the subject")
    if not _HEX.fullmatch(previous) or not _TYPE.fullmatch(type_):
        return Malformed("shape", "ce-prevhash has to be 64 hexadecimal digits, ce-type a word in ASCII")
    return None


def _missing_headers(headers: Mapping[str, str]) -> Malformed:
    missing = [name for name in REQUIRED if not headers.get(name)]
    what = "has no headers" if len(missing) == len(REQUIRED) else f"lacks the headers {', '.join(missing)}"
    return Malformed("shape", f"the message {what}")


def follows(recorded: Recorded, version: int, digest: str) -> Malformed | None:
    """Why a message of valid form may not follow an event of this version and digest; None if it may."""
    if recorded.version != version + 1:
        at = f"is at event {version}" if version else "has no event yet"
        return Malformed("version", f"the message is event {recorded.version} of an aggregate that {at}")
    if recorded.previous != digest:
        return Malformed("chain", "ce-prevhash is not the digest of the aggregate's previous event")
    return None


def body(recorded: Recorded) -> Event | Malformed:
    """The typed event of a message of valid form."""
    ref = recorded.ref
    try:
        event = recorded.event
    except Exception as error:  # parsers of untrusted bytes raise many kinds of errors
        return Malformed("unreadable", f"the {recorded.type} cannot be read: {first_line(error)}")
    if isinstance(event, Foreign):
        return event
    kind = family(event.TOPIC)
    if kind not in (None, ref.kind):
        return Malformed("type", f"{recorded.type} is not an event of a {ref.kind}")
    if not in_bounds(event):
        return Malformed("unreadable", f"the {recorded.type} has a number or a time out of bounds")
    if kind == ref.kind and names_another(event, ref):
        return Malformed("type", f"the {recorded.type} names another {ref.kind} than the subject")
    return event


@cache
def family(topic: str) -> str | None:
    """The kind of aggregate that a type of event belongs to; None if aggregates of any kind may have it."""
    owner, _, rest = topic.partition(".")
    kind = rest.partition(".")[0] if owner == subjects.PREFIX else None
    return kind if kind in NAMES else None


def names_another(event: Event, ref: Ref) -> bool:
    """Whether an event that names its aggregate names another one than its subject."""
    holder = optional(event, "info") if ref.kind == "node" else event
    if optional(holder, ref.kind, ref.id) != ref.id:
        return True
    return ref.kind == "vm" and optional(event, "project", ref.project) != ref.project


def in_bounds(value: object, depth: int = 0) -> bool:
    """Whether all numbers and times are in the range that all readers can store, compare and show."""
    kind: type = type(value)
    if kind in _ALWAYS_IN_BOUNDS:
        return True
    if type(value) is tuple:
        return depth <= _DEEPEST and _all_in_bounds(value, depth)
    fields = fields_to_check(kind)
    if fields is not None and depth <= _DEEPEST:  # events and most of their parts
        held = value.__dict__
        return _all_in_bounds([held.get(name) for name in fields], depth)
    if isinstance(value, Enum):
        return True
    if isinstance(value, int):
        return -_MOST <= value < _MOST
    if isinstance(value, float):
        return abs(value) < _MOST
    if isinstance(value, datetime):
        return time_in_bounds(value)
    if depth > _DEEPEST:
        return False
    if isinstance(value, dict):
        return _all_in_bounds(value.values(), depth)
    if isinstance(value, tuple | list | frozenset | set):
        return _all_in_bounds(value, depth)
    return True


@cache
def fields_to_check(kind: type) -> tuple[str, ...] | None:
    """The fields of a model that may contain a number or a time. The others need no check. None if it is no model."""
    if not issubclass(kind, BaseModel):
        return None
    return tuple(name for name, field in kind.model_fields.items() if not _harmless(field.annotation))


def _harmless(annotation: Any) -> bool:
    """Whether no value of a type contains a number or a time."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _harmless(get_args(annotation)[0])
    if origin in (Union, UnionType, tuple, list, dict, set, frozenset):
        return all(_harmless(part) for part in get_args(annotation) if part is not Ellipsis)
    if origin is Literal:
        return True
    return annotation in _ALWAYS_IN_BOUNDS or (isinstance(annotation, type) and issubclass(annotation, StrEnum))


def _all_in_bounds(parts: Iterable[object], depth: int) -> bool:
    for each in parts:  # the fast path for every event: no call for most values
        if type(each) in _ALWAYS_IN_BOUNDS:
            continue
        if type(each) is int:
            fits = -_MOST <= each < _MOST
        elif type(each) is datetime:
            fits = time_in_bounds(each)
        else:
            fits = in_bounds(each, depth + 1)
        if not fits:
            return False
    return True


def time_in_bounds(time: datetime) -> bool:
    return time.tzinfo is not None and _FIRST_YEAR <= time.year <= _LAST_YEAR


def named(event: Event) -> str:
    return event.topic if isinstance(event, Foreign) else event.TOPIC


def first_line(error: Exception) -> str:
    """The message of an exception on one line; for a ValidationError, with the field."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:100]
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
