"""Converts states of aggregates to compact bytes and back.

Every type that a state of a kind may contain is found by its annotations, so a new kind needs nothing here. A state
comes back equal, with values of the same types. Equal states have equal bytes, whatever made them. The bytes are valid
for this version of the code only: classes are numbered in the order of their names, fields in their order. A class that
is in no annotation, such as that of the values of a persistent map, is named in full. A map of a class of its own needs
`of`, which makes it of a mapping.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import Enum
from operator import attrgetter
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rpds import HashTrieMap

from domain.accepted_requests import AcceptedRequest
from domain.kinds import KINDS
from domain.node.reservations import Reserved
from runtime.text.iso import iso

#: The marks of composite values that are no class of ours: the first item of the list that stands for the value.
TUPLE, LIST, DICT, TIME, DURATION, MAP, SET = range(-1, -8, -1)

_PLAIN = frozenset({type(None), bool, int, float, str})
_MICROSECOND = timedelta(microseconds=1)
_DUMP = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
_LOAD = json.JSONDecoder().decode
_PACK, _UNPACK = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder[Any]().decode
_JSON = b"\xc1"
"""The first byte of a value as JSON; MessagePack does not use it."""
MISSING = object()
"""Stands for the default of a field without one."""

Encoder = Callable[[Any], Any]
Decoder = Callable[[list[Any]], Any]


class CannotPack(TypeError):
    """A value has a type that is none of JSON, of the domain, or of the few that this file knows."""


def classes() -> list[type[Any]]:
    """All classes that states contain, sorted by name."""
    found: set[type[Any]] = {AcceptedRequest, Reserved}  # annotations name only maps of them
    for kind in KINDS.values():
        _collect(kind.state, found)
    return sorted(found, key=lambda each: (each.__module__, each.__qualname__))


def _collect(annotation: Any, found: set[type[Any]]) -> None:
    """Add the classes of ours that an annotation names, and those of their fields."""
    for argument in get_args(annotation):
        _collect(argument, found)
    if not isinstance(annotation, type) or annotation in found or get_origin(annotation) is not None:
        return
    structured = dataclasses.is_dataclass(annotation) or issubclass(annotation, BaseModel)
    if not structured and not issubclass(annotation, Enum) and not hasattr(annotation, "_fields"):
        return
    found.add(annotation)
    if not issubclass(annotation, Enum):
        for each in get_type_hints(annotation, include_extras=True).values():
            _collect(each, found)


def full_name(class_: type[Any]) -> str:
    """The name of a class of the domain. Raises CannotPack for another one."""
    structured = dataclasses.is_dataclass(class_) or issubclass(class_, BaseModel | Enum) or hasattr(class_, "_fields")
    is_map = issubclass(class_, Mapping) and hasattr(class_, "of")
    if not (structured or is_map) or class_.__module__.partition(".")[0] != "domain":
        raise CannotPack(f"a state has a value of type {class_.__qualname__}")
    return f"{class_.__module__}:{class_.__qualname__}"


def named(name: str) -> type[Any]:
    """The class with a full name. Raises CannotPack if it is none of the domain."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or full_name(found) != name:
        raise CannotPack(f"{name} is no class of the domain")
    return found


class Codec:
    """Packs and unpacks values of the classes."""

    def __init__(self, known: list[type[Any]]) -> None:
        self._encoders: dict[type[Any], Encoder] = {
            tuple: lambda value: [TUPLE, *map(self.encode, value)],
            list: lambda value: [LIST, *map(self.encode, value)],
            dict: lambda value: [DICT, *(self.encode(each) for item in value.items() for each in item)],
            datetime: lambda value: [TIME, iso(value)],
            timedelta: lambda value: [DURATION, value // _MICROSECOND],
            HashTrieMap: lambda value: [MAP, *(self.encode(each) for item in sorted(value.items()) for each in item)],
            frozenset: lambda value: [SET, *map(self.encode, sorted(value))],
        }
        self._decoders: dict[int | str, Decoder] = {
            TUPLE: lambda found: tuple([self.decode(each) for each in found[1:]]),
            LIST: lambda found: [self.decode(each) for each in found[1:]],
            DICT: lambda found: dict(self._pairs(found)),
            TIME: lambda found: datetime.fromisoformat(found[1]),
            DURATION: lambda found: found[1] * _MICROSECOND,
            MAP: lambda found: HashTrieMap(dict(self._pairs(found))),
            SET: lambda found: frozenset(self.decode(each) for each in found[1:]),
        }
        for number, class_ in enumerate(known):
            self._add(number, class_)

    def pack(self, value: Any) -> bytes:
        """Raises CannotPack."""
        encoded = self.encode(value)
        try:
            return _PACK(encoded)
        except (OverflowError, UnicodeEncodeError):  # an integer of more than 64 bits, a lone surrogate
            return _JSON + _DUMP(encoded).encode()

    def unpack(self, packed: bytes) -> Any:
        """The value that was packed. `packed` must come from `pack` of the same version."""
        return self.decode(_LOAD(packed[1:].decode()) if packed[:1] == _JSON else _UNPACK(packed))

    def encode(self, value: Any) -> Any:
        """The value as lists, texts, numbers and None. Raises CannotPack."""
        if type(value) in _PLAIN:
            return value
        encoder = self._encoders.get(type(value)) or self._add(full_name(type(value)), type(value))
        return encoder(value)

    def decode(self, value: Any) -> Any:
        if type(value) is not list:
            return value
        mark = value[0]
        if mark not in self._decoders:
            self._add(mark, named(mark))
        return self._decoders[mark](value)

    def _add(self, mark: int | str, class_: type[Any]) -> Encoder:
        """Learn a class, and return its encoder."""
        self._encoders[class_], self._decoders[mark] = self._of_class(mark, class_)
        return self._encoders[class_]

    def _pairs(self, found: list[Any]) -> Iterator[tuple[Any, Any]]:
        decoded = map(self.decode, found[1:])
        return zip(decoded, decoded, strict=True)

    def _of_class(self, mark: int | str, class_: type[Any]) -> tuple[Encoder, Decoder]:
        """What encodes values of a class, and what makes them again."""
        if issubclass(class_, Enum):
            return (lambda value: [mark, value.value]), (lambda found: class_(found[1]))
        if issubclass(class_, tuple):
            return (
                lambda value: [mark, *map(self.encode, value)],
                lambda found: class_(*[self.decode(each) for each in found[1:]]),
            )
        if issubclass(class_, Mapping):
            of = class_.of  # type: ignore[attr-defined]
            return (
                lambda value: [mark, *(self.encode(each) for item in sorted(value.items()) for each in item)],
                lambda found: of(dict(self._pairs(found))),
            )
        return self._of_fields(mark, class_)

    def _of_fields(self, mark: int | str, class_: type[Any]) -> tuple[Encoder, Decoder]:
        """The same for a dataclass or a model: only the fields that differ from their defaults are kept."""
        defaults = defaults_of(class_)
        names = tuple(defaults)
        fields = tuple(enumerate(defaults.values()))
        values = attrgetter(*names) if len(names) > 1 else lambda value: [getattr(value, name) for name in names]
        is_model = issubclass(class_, BaseModel)
        template = {name: default for name, default in defaults.items() if default is not MISSING}

        def encode(value: Any) -> list[Any]:
            encoded: list[Any] = [mark]
            for (index, default), found in zip(fields, values(value), strict=True):
                if found is not default and (type(found) is not type(default) or found != default):
                    encoded += (index, found if type(found) in _PLAIN else self.encode(found))
            return encoded

        def decode(found: list[Any]) -> Any:
            content = dict(template)
            for at in range(1, len(found), 2):
                value = found[at + 1]
                content[names[found[at]]] = self.decode(value) if type(value) is list else value
            made = object.__new__(class_)
            if not is_model:
                made.__dict__.update(content)
                return made
            set_ = object.__setattr__
            set_(made, "__dict__", content)
            set_(made, "__pydantic_fields_set__", set(content))
            set_(made, "__pydantic_extra__", None)
            set_(made, "__pydantic_private__", None)
            return made

        return encode, decode


def defaults_of(class_: type[Any]) -> dict[str, Any]:
    """The default of each field of a dataclass or a model, in the order of the fields; MISSING if it has none."""
    infos: Mapping[str, FieldInfo] = class_.__pydantic_fields__
    return {
        name: MISSING if info.is_required() else info.get_default(call_default_factory=True)
        for name, info in infos.items()
    }


CODEC = Codec(classes())
"""The codec for the states of all kinds."""
