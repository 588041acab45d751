"""What every aggregate shares: messages, refusals, and the registry of wire names."""

import re
import unicodedata
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from domain import patterns

Hostname = Annotated[str, StringConstraints(pattern=f"^{patterns.SLUG}$", min_length=1, max_length=63)]
"""One RFC 1123 label in lower case: what a guest can carry as its hostname."""

Slug = Annotated[str, StringConstraints(pattern=f"^{patterns.SLUG}$", min_length=1, max_length=63)]
"""An id that people choose and type: projects, tags, images, nodes. Always one NATS subject token."""

Uuid = Annotated[str, StringConstraints(pattern=f"^{patterns.UUID}$")]
"""A UUID in its canonical lower-case form."""


def printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has to be printable characters on one line")
    return text


def one_spelling(text: str) -> str:
    """A text in NFC, so that two spellings of it are one. Raises ValueError for accents that belong to no letter."""
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFC", text)
    before = " "
    for char in composed:
        if before in " \n" and unicodedata.category(char).startswith("M"):
            raise ValueError("has an accent or a mark that belongs to no letter")
        before = char
    return composed


_VISIBLE = r"\p{L}\p{N}\p{P}\p{S}"
_WORD = rf"[{_VISIBLE}][\p{{M}}{_VISIBLE}]*"
#: What `printable` and `one_spelling` let through, as a regular expression of JSON Schema (ECMA-262, Unicode mode).
LINE_PATTERN = rf"^ *{_WORD}( +{_WORD})* *$"
LINES_PATTERN = rf"^[ \n]*({_WORD}([ \n]+{_WORD})*[ \n]*)?$"


def trimmed(text: str) -> str:
    """Without the spaces around it, which count in its length. Raises ValueError when nothing is left."""
    found = text.strip(" ")
    if not found:
        raise ValueError("has to say something")
    return found


_Line = (
    AfterValidator(printable),
    AfterValidator(trimmed),
    AfterValidator(one_spelling),
    Field(json_schema_extra={"pattern": LINE_PATTERN}),
)

Reason = Annotated[str, StringConstraints(min_length=1, max_length=500), *_Line]
"""Why somebody did what should be done rarely, in their own words."""

Actor = Annotated[str, StringConstraints(min_length=1, max_length=255), *_Line]
"""Who does something: a person, a program, or a part of the platform."""

Title = Annotated[str, StringConstraints(min_length=1, max_length=120), *_Line]
"""A name for people to read."""


Remark = Annotated[
    str,
    StringConstraints(max_length=1000),
    AfterValidator(printable),
    AfterValidator(lambda text: text.strip(" ")),
    AfterValidator(one_spelling),
    Field(json_schema_extra={"pattern": rf"^ *({_WORD}( +{_WORD})* *)?$"}),
]
"""What people say of a thing, on one line; it may be empty."""


class Value(BaseModel):
    """An immutable value, equal by content. Unknown fields are refused."""

    # What was given may be a secret, and errors end up in logs: they name the field, not its value.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_timedelta="float", hide_input_in_errors=True)


LENIENT = ConfigDict(extra="ignore", hide_input_in_errors=True)
"""How events and states are read: leniently towards fields that a newer version added. States are frozen dataclasses
(`pydantic.dataclasses`) with this configuration, and change by `replace`.
"""


class Message(BaseModel):
    """Base of events and of the values in them: immutable, and lenient."""

    model_config = ConfigDict(**LENIENT, frozen=True)


if TYPE_CHECKING:
    from dataclasses import replace as replace  # noqa: PLC0414 - so that the type checker knows the fields
else:
    _T = TypeVar("_T")

    def replace(state: _T, /, **changes: Any) -> _T:
        """A copy of a state with other values for some fields, which are not validated: one copy of its dict."""
        made = object.__new__(type(state))
        made.__dict__.update(state.__dict__, **changes)
        return made


class Command(Value):
    """A wish, with everything that deciding on it needs: ids and the time (`at`, UTC) come with it."""

    at: AwareDatetime


def optional(model: BaseModel | None, field: str, missing: Any = None) -> Any:
    """A field that only some models have. `getattr` takes microseconds where a model lacks it."""
    return missing if model is None else model.__dict__.get(field, missing)


_EVENT_TYPES: dict[str, type["Event"]] = {}


class Event(Message):
    """Something that happened. `TOPIC` is its wire name, for ever; the class may move and be renamed.

    `VERSION` counts the shapes that its body has had: eventstore/log/upcast.py makes new ones of old ones.
    """

    TOPIC: ClassVar[str]
    VERSION: ClassVar[int] = 1
    #: whether it has a field `created_by`: the actor of its own header, which readers fill in
    SIGNED: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        topic = cls.__dict__.get("TOPIC")
        if topic is None:
            return  # an abstract family, such as "all events of a VM"
        if topic in _EVENT_TYPES:
            raise TypeError(f"two event classes claim the wire name {topic}")
        _EVENT_TYPES[topic] = cls


class Foreign(Event):
    """An event of a type this version does not know: kept as it is, changes no state."""

    topic: str
    body: Any


class ReferenceChecked(Event):
    """The events before it, of the same aggregate and append, were decided while another aggregate stood at a position.

    The server checked that in the same append. `position` is 0 when the other one had no events. It changes no state.
    """

    TOPIC: ClassVar[str] = "nebula.log.ReferenceChecked"
    project: str
    kind: str
    id: str
    position: int


def event_types() -> Iterator[tuple[str, type[Event]]]:
    """Every known wire name with its class, in the order of their names."""
    yield from sorted(_EVENT_TYPES.items())


def event_type(topic: str) -> type[Event] | None:
    """The class that owns a wire name, or None where this version knows none."""
    return _EVENT_TYPES.get(topic)


class Category(StrEnum):
    """What kind of refusal it is, for who does not know its code."""

    CONFLICT = "conflict"
    """It makes sense, and may not be as things are now."""
    INVALID = "invalid"
    """It makes no sense, whatever is so."""
    NOT_FOUND = "not_found"
    """What it is asked of has never been there."""
    GONE = "gone"
    """What it is asked of was there, and never comes back."""
    TOO_LARGE = "too_large"
    """It is more than an event can hold."""
    UNAVAILABLE = "unavailable"
    """It cannot be done just now, for no reason that lies in it."""


class Rejected(Exception):
    """A command that the rules refuse. It leaves no event.

    `code` is stable and meant for programs; `detail` says, for people, what is wrong and what would help; `field`
    names the part of the request at fault, where there is one; `category` is the kind of refusal.
    """

    def __init__(
        self, code: str, detail: str, category: Category = Category.CONFLICT, *, field: str | None = None
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.category = category
        self.field = field


class Sealed(Value):
    """A secret, encrypted with a key that the log does not hold (AES-256-GCM). Base64 throughout.

    Once the key is destroyed nobody can read it again, replay included.
    """

    key: str = Field(description="name of the key in the vault")
    nonce: str
    ciphertext: str
    size: int = Field(description="length of the clear text in bytes")


class Resources(Message):
    """An amount of a host: virtual CPUs, memory in MiB, disk in GiB."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0


class Closing(Message):
    """A deletion that has begun: until it is finished or given up, nothing new may refer to the aggregate.

    `operation` is what the deletion becomes when it is finished.
    """

    operation: str
    fingerprint: str
    since: AwareDatetime


def at_most(most: int) -> BeforeValidator:
    """Refuse a longer array before its items are looked at: there may be very many, and all wrong."""

    def judged(given: Any) -> Any:
        if not isinstance(given, list | tuple):
            return given
        if len(given) > most:
            raise ValueError(f"may have at most {most} items, not {len(given)}")
        return tuple(given)  # (a list is none where models are strict)

    return BeforeValidator(judged)


def unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """The values in their order, without repeats."""
    return tuple(dict.fromkeys(values))


_LABEL_KEY = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?")
_MOST_VALUE = 255
LABELS_SCHEMA: dict[str, Any] = {
    "propertyNames": {"pattern": f"^{_LABEL_KEY.pattern}$"},
    "additionalProperties": {
        "type": "string",
        "maxLength": _MOST_VALUE,
        "pattern": rf"^[\p{{M}}{_VISIBLE} ]*$",
    },
}


def label_key(key: str) -> str:
    """The key of a label. Raises ValueError."""
    if not _LABEL_KEY.fullmatch(key):
        raise ValueError(
            f"a label's key has to be 1 to 63 lower-case letters, digits, '.', '_', '/' or '-', "
            f"with a letter or digit at both ends, not {key[:63]!r}"
        )
    return key


def label_value(value: str) -> str:
    """The value of a label, in NFC. Raises ValueError."""
    if len(value) > _MOST_VALUE or not value.isprintable():
        raise ValueError(f"a label's value has to be at most {_MOST_VALUE} printable characters")
    return unicodedata.normalize("NFC", value)


def labels(given: dict[str, str]) -> dict[str, str]:
    return {label_key(key): label_value(given[key]) for key in sorted(given)}


Labels = Annotated[dict[str, str], Field(max_length=64, json_schema_extra=LABELS_SCHEMA), AfterValidator(labels)]
"""What people note of a thing, for themselves and their programs: free keys and values."""

MOST_TAGS = 64
Tags = Annotated[tuple[Slug, ...], Field(max_length=MOST_TAGS), at_most(MOST_TAGS), AfterValidator(unique)]


def being_deleted(kind: str, id_: str, *, field: str | None = None) -> Rejected:
    """The refusal of what is asked of an aggregate, or would refer to it, while a deletion of it is not decided."""
    return Rejected(f"{kind}_being_deleted", f"{kind} {id_} is being deleted; try again in a moment", field=field)
