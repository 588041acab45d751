"""Is this message an event, and may it follow at this place? All readers of the log use this one judge.

Whoever reaches the bus can store anything on a subject of the log, and it stays there for ever. A message that the
judge refuses is *malformed*: all readers ignore it, and later messages are judged as if it were not there. The verdict
depends on the log alone, so all readers come to the same one. Events of types that this program does not know are
accepted if their headers are right.
"""

import re
from collections.abc import Callable, Iterable, Mapping
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
from eventstore.log.envelope import GENESIS, Recorded, Ref, address
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
_ALWAYS_SOUND = frozenset({type(None), str, bool, bytes})


@dataclass(frozen=True, slots=True)
class Malformed:
    """Why a message is no event, or none that may stand here. `code` as in docs/integrity.md, `reason` for people."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of one aggregate's history: version and digest of its last event (0 and zeros when it has none).

    `position` is that of the last message on its subject, malformed or not: what the server compares an append with.
    `time` is when the last event was decided.
    """

    ref: Ref
    version: int = 0
    position: int = 0
    digest: str = GENESIS
    time: datetime | None = field(default=None, compare=False)

    def after(self, recorded: Recorded) -> "Tip":
        """Behind one more event."""
        return Tip(self.ref, recorded.version, recorded.position, recorded.digest, recorded.time)

    def past(self, recorded: Recorded) -> "Tip":
        """Behind a malformed message."""
        return replace(self, position=recorded.position)


def judge(recorded: Recorded, tip: Tip) -> Event | Malformed:
    """The event, when the message is one and follows the tip."""
    return judge_after(recorded, tip.version, tip.digest)


def judge_after(recorded: Recorded, version: int, digest: str) -> Event | Malformed:
    """The event, when the message is one and follows an event of this version and digest."""
    return shape(recorded) or follows(recorded, version, digest) or body(recorded)


def step(
    evolve: Callable[[S | None, Event], S | None], state: S | None, tip: Tip, recorded: Recorded
) -> tuple[S | None, Tip, Malformed | None]:
    """State and tip behind one more message, and what is wrong with it."""
    verdict = judge_after(recorded, tip.version, tip.digest)
    if isinstance(verdict, Malformed):
        return state, tip.past(recorded), verdict
    state, wrong = evolved(evolve, state, verdict)
    return state, tip.after(recorded), wrong


def evolved(
    evolve: Callable[[S | None, Event], S | None], state: S | None, event: Event
) -> tuple[S | None, Malformed | None]:
    """The state after an event. One that cannot be applied is part of the history and changes nothing."""
    try:
        return evolve(state, event), None
    except Exception as error:  # a bug in the rules: one event must not stop the reading of the others
        return state, Malformed("unapplied", f"the {named(event)} could not be applied: {first_line(error)}")


def shape(recorded: Recorded) -> Malformed | None:
    """What is wrong with subject and headers, taken by themselves."""
    if recorded.ours:
        return None
    headers = recorded.headers
    try:
        expected = address(recorded.subject)
    except ValueError as error:
        return Malformed("shape", f"the subject is not one of an event: {error}")
    if recorded.raw is not None:
        return Malformed("shape", "the headers are not plain text, or one of them is there twice")
    try:
        said = _required(headers)
    except KeyError:
        said = ("",)
    if "" in said:
        return _lacking(headers)
    spec, id_, type_, source, _, version, previous = said
    of_type = headers.get(TYPE_VERSION)
    if not _NUMBER.fullmatch(version) or (of_type is not None and not _NUMBER.fullmatch(of_type)):
        return Malformed("shape", "a version in the headers is no positive number")
    if spec != "1.0" or id_ != expected.id_before_version + version:
        return Malformed("shape", f"ce-specversion has to be 1.0, ce-id {expected.id_before_version}{version}")
    if source != expected.source:
        return Malformed("shape", "ce-source names another aggregate than the subject")
    if not _HEX.fullmatch(previous) or not _TYPE.fullmatch(type_):
        return Malformed("shape", "ce-prevhash has to be 64 hexadecimal digits, ce-type a word in ASCII")
    try:
        time = recorded.time
    except ValueError:
        return Malformed("shape", "ce-time is no time")
    if not sound_time(time):
        return Malformed("shape", f"ce-time has to be a time with its zone, between {_FIRST_YEAR} and {_LAST_YEAR}")
    return None


def _lacking(headers: Mapping[str, str]) -> Malformed:
    missing = [name for name in REQUIRED if not headers.get(name)]
    some = "has no headers" if len(missing) == len(REQUIRED) else f"lacks the headers {', '.join(missing)}"
    return Malformed("shape", f"the message {some}")


def follows(recorded: Recorded, version: int, digest: str) -> Malformed | None:
    """What keeps a message of the right shape from following an event of this version and digest."""
    if recorded.headers["ce-aggregateversion"] != str(version + 1):
        at = f"is at event {version}" if version else "has no event yet"
        return Malformed("version", f"the message says event {recorded.version} of an aggregate that {at}")
    if recorded.previous != digest:
        return Malformed("chain", "the event before it is not the one that the message says it was appended to")
    return None


def body(recorded: Recorded) -> Event | Malformed:
    """The typed event of a message of the right shape."""
    ref = recorded.ref
    try:
        event = recorded.event
    except Exception as error:  # whatever a parser makes of bytes that anybody may have written
        return Malformed("unreadable", f"the {recorded.type} cannot be read: {first_line(error)}")
    if isinstance(event, Foreign):
        return event
    kind = family(event.TOPIC)
    if kind not in (None, ref.kind):
        return Malformed("type", f"{recorded.type} is no event of a {ref.kind}")
    if not sound(event):
        return Malformed("unreadable", f"the {recorded.type} holds a number or a time beyond all bounds")
    if kind == ref.kind and names_another(event, ref):
        return Malformed("type", f"the {recorded.type} names another {ref.kind} than the subject")
    return event


@cache
def family(topic: str) -> str | None:
    """The kind of aggregate that a type of event belongs to; None where any may have it."""
    owner, _, rest = topic.partition(".")
    kind = rest.partition(".")[0] if owner == subjects.PREFIX else None
    return kind if kind in NAMES else None


def names_another(event: Event, ref: Ref) -> bool:
    """Whether an event that names its aggregate names another one than its subject."""
    holder = optional(event, "info") if ref.kind == "node" else event
    if optional(holder, ref.kind, ref.id) != ref.id:
        return True
    return ref.kind == "vm" and optional(event, "project", ref.project) != ref.project


def sound(value: object, depth: int = 0) -> bool:
    """Whether all numbers and times can be stored, compared and shown by everybody."""
    if type(value) in _ALWAYS_SOUND:
        return True
    if type(value) is datetime:
        return sound_time(value)
    if isinstance(value, BaseModel) and depth <= _DEEPEST:  # what an event is, and most of what it holds
        held = value.__dict__
        return _all_sound([held.get(name) for name in doubtful(type(value))], depth)
    if isinstance(value, Enum):
        return True
    if isinstance(value, int):
        return -_MOST <= value < _MOST
    if isinstance(value, float):
        return abs(value) < _MOST
    if isinstance(value, datetime):
        return sound_time(value)
    if depth > _DEEPEST:
        return False
    if isinstance(value, dict):
        return _all_sound(value.values(), depth)
    if isinstance(value, tuple | list | frozenset | set):
        return _all_sound(value, depth)
    return True


@cache
def doubtful(model: type[BaseModel]) -> tuple[str, ...]:
    """The fields that may hold a number or a time: the others need no look, whatever an event says."""
    return tuple(name for name, field in model.model_fields.items() if not _harmless(field.annotation))


def _harmless(annotation: Any) -> bool:
    """Whether no value of a type holds a number or a time."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _harmless(get_args(annotation)[0])
    if origin in (Union, UnionType, tuple, list, dict, set, frozenset):
        return all(_harmless(part) for part in get_args(annotation) if part is not Ellipsis)
    if origin is Literal:
        return True
    return annotation in _ALWAYS_SOUND or (isinstance(annotation, type) and issubclass(annotation, StrEnum))


def _all_sound(parts: Iterable[object], depth: int) -> bool:
    for each in parts:  # noqa: SIM110  (every event passes here: no call for what needs none)
        if type(each) not in _ALWAYS_SOUND and not sound(each, depth + 1):
            return False
    return True


def sound_time(time: datetime) -> bool:
    return time.tzinfo is not None and _FIRST_YEAR <= time.year <= _LAST_YEAR


def named(event: Event) -> str:
    return event.topic if isinstance(event, Foreign) else event.TOPIC


def first_line(error: Exception) -> str:
    """What an exception says, on one line; of a body that does not fit its type, where."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:100]
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
