"""What all aggregates share: base classes of messages, the refusal of a command, and the registry of wire names."""

import re
import unicodedata
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from domain import patterns

Hostname = Annotated[str, StringConstraints(pattern=f"^{patterns.SLUG}$", min_length=1, max_length=63)]
"""One RFC 1123 label in lower case: a valid hostname of a guest."""

Slug = Annotated[str, StringConstraints(pattern=f"^{patterns.SLUG}$", min_length=1, max_length=63)]
"""An id that people choose and type: projects, tags, images, nodes. Always one NATS subject token."""

Uuid = Annotated[str, StringConstraints(pattern=f"^{patterns.UUID}$")]
"""A UUID in its canonical lower-case form."""


def printable(text: str) -> str:
    """The text, if all of it is printable. Raises ValueError."""
    if not text.isprintable():
        raise ValueError("has to be printable characters on one line")
    return text


def to_nfc(text: str) -> str:
    """The text in Unicode's NFC, so that equal texts have equal bytes.

    Raises ValueError for a combining mark that does not follow a letter.
    """
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
#: What `printable` and `to_nfc` accept, as a regular expression of JSON Schema (ECMA-262, Unicode mode).
LINE_PATTERN = rf"^ *{_WORD}( +{_WORD})* *$"
LINES_PATTERN = rf"^[ \n]*({_WORD}([ \n]+{_WORD})*[ \n]*)?$"


def trim(text: str) -> str:
    """The text without leading and trailing spaces; its maximum length includes them. Raises ValueError if empty."""
    content = text.strip(" ")
    if not content:
        raise ValueError("must not be empty or only spaces")
    return content


_Line = (
    AfterValidator(printable),
    AfterValidator(trim),
    AfterValidator(to_nfc),
    Field(json_schema_extra={"pattern": LINE_PATTERN}),
)

Reason = Annotated[str, StringConstraints(min_length=1, max_length=500), *_Line]
"""Why the caller gives a command that is rarely right, such as `forget`, in their own words."""

Actor = Annotated[str, StringConstraints(min_length=1, max_length=255), *_Line]
"""Who gives a command: a person, a program, or a part of the platform."""

Title = Annotated[str, StringConstraints(min_length=1, max_length=120), *_Line]
"""A name for people to read."""


Remark = Annotated[
    str,
    StringConstraints(max_length=1000),
    AfterValidator(printable),
    AfterValidator(lambda text: text.strip(" ")),
    AfterValidator(to_nfc),
    Field(json_schema_extra={"pattern": rf"^ *({_WORD}( +{_WORD})* *)?$"}),
]
"""A description of a resource, on one line; it may be empty."""


class Value(BaseModel):
    """An immutable value, equal by content. Unknown fields are refused."""

    # An input may be a secret, and errors are logged: they name the field, not its value.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_timedelta="float", hide_input_in_errors=True)


LENIENT = ConfigDict(extra="ignore", hide_input_in_errors=True)
"""The configuration of events and states: fields that a newer version added are ignored. States are frozen dataclasses
(`pydantic.dataclasses`) with this configuration; `replace` makes a changed copy.
"""


class Message(BaseModel):
    """Base of events and of the values in them: immutable; unknown fields are ignored."""

    model_config = ConfigDict(**LENIENT, frozen=True)


if TYPE_CHECKING:
    from dataclasses import replace as replace  # noqa: PLC0414 - so that the type checker knows the fields
else:
    _T = TypeVar("_T")

    def replace(state: _T, /, **changes: Any) -> _T:
        """A copy of a state with new values for some fields. It is fast, because nothing is validated."""
        made = object.__new__(type(state))
        made.__dict__.update(state.__dict__, **changes)
        return made


class Command(Value):
    """A request to change something, with everything that `decide` needs: ids, and the time (`at`, in UTC)."""

    at: AwareDatetime


def optional(model: BaseModel | None, field: str, missing: Any = None) -> Any:
    """The value of a field that only some models have, or `missing`. It is faster than `getattr` with a default."""
    return missing if model is None else model.__dict__.get(field, missing)


_EVENT_TYPES: dict[str, type["Event"]] = {}


class Event(Message):
    """Something that happened. `TOPIC` is its wire name and never changes; the class may move and be renamed.

    `VERSION` is the version of its body's fields: eventstore/log/upcast.py converts bodies of earlier versions.
    """

    TOPIC: ClassVar[str]
    VERSION: ClassVar[int] = 1
    #: whether it has a field `created_by`, which readers fill in with the actor from its header
    SIGNED: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        topic = cls.__dict__.get("TOPIC")
        if topic is None:
            return  # an abstract base, such as `VmEvent`
        if topic in _EVENT_TYPES:
            raise TypeError(f"two event classes claim the wire name {topic}")
        _EVENT_TYPES[topic] = cls


class Foreign(Event):
    """An event of a type that this version does not know. It is kept as it is, and changes no state."""

    topic: str
    body: Any


class ReferenceChecked(Event):
    """Another aggregate (`project`, `kind`, `id`) still was at `position` when this append was stored.

    The server checked that. The earlier events of the same append depend on the state of that aggregate. `position` is
    the position of its last event, 0 if it had none. This event changes no state.
    """

    TOPIC: ClassVar[str] = "nebula.log.ReferenceChecked"
    project: str
    kind: str
    id: str
    position: int


def event_types() -> Iterator[tuple[str, type[Event]]]:
    """All known wire names with their classes, sorted by name."""
    yield from sorted(_EVENT_TYPES.items())


def event_type(topic: str) -> type[Event] | None:
    """The class with this wire name; None if this version has none."""
    return _EVENT_TYPES.get(topic)


class Category(StrEnum):
    """The category of a refusal, for programs that do not know its code."""

    CONFLICT = "conflict"
    """The command is valid, but the present state does not allow it."""
    INVALID = "invalid"
    """The command is invalid in every state."""
    NOT_FOUND = "not_found"
    """The resource has never existed."""
    GONE = "gone"
    """The resource existed and was deleted for ever."""
    UNAUTHORIZED = "unauthorized"
    """The caller's credential is worthless, or the caller is disabled."""
    FORBIDDEN = "forbidden"
    """The caller may see the resource, and not do this."""
    TOO_LARGE = "too_large"
    """The command needs an event larger than the log accepts."""
    UNAVAILABLE = "unavailable"
    """The platform cannot decide the command at present. The command itself is not at fault."""


class Rejected(Exception):
    """The rules refuse a command. No event is stored.

    `code` is stable, for programs. `detail` tells people what is wrong and what to do. `field` names the part of the
    request that is wrong, if there is one.
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
    """A secret, encrypted (AES-256-GCM) with a key that is not in the log. Nonce and ciphertext are base64.

    Once the key is destroyed, nobody can decrypt it.
    """

    key: str = Field(description="name of the key in the vault")
    nonce: str
    ciphertext: str
    size: int = Field(description="length of the clear text in bytes")


class Resources(Message):
    """Resources of a host: number of virtual CPUs, memory in MiB, disk in GiB."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0


class Closing(Message):
    """A deletion that has begun. Until it is finished or given up, nothing new may refer to the aggregate.

    `operation`: the id of the operation that records the deletion once it is finished.
    """

    operation: str
    fingerprint: str
    since: AwareDatetime


def at_most(most: int) -> BeforeValidator:
    """A validator that refuses an array of more items before the items are validated, which would take long."""

    def check(given: Any) -> Any:
        if not isinstance(given, list | tuple):
            return given
        if len(given) > most:
            raise ValueError(f"may have at most {most} items, not {len(given)}")
        return tuple(given)  # strict models refuse a list here

    return BeforeValidator(check)


def as_integer(value: object) -> object:
    """A float without a fraction as an integer: JSON does not distinguish 1.0 from 1. Anything else unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """The values in the same order, without duplicates."""
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
    """Valid labels, sorted by key. Raises ValueError."""
    return {label_key(key): label_value(given[key]) for key in sorted(given)}


Labels = Annotated[dict[str, str], Field(max_length=64, json_schema_extra=LABELS_SCHEMA), AfterValidator(labels)]
"""Keys and values that people and their programs attach to a resource. They mean nothing to the platform."""

MOST_TAGS = 64
Tags = Annotated[tuple[Slug, ...], Field(max_length=MOST_TAGS), at_most(MOST_TAGS), AfterValidator(unique)]


def being_deleted(kind: str, id_: str, *, field: str | None = None) -> Rejected:
    """The refusal of a command on an aggregate, or of a new reference to it, while its deletion is not decided yet."""
    return Rejected(f"{kind}_being_deleted", f"{kind} {id_} is being deleted; try again in a moment", field=field)
