"""Parses events, and converts ("upcasts") bodies of old versions of a type to the newest version.

An event class has a VERSION, stored in the header `ce-typeversion` (left out if it is 1). A change that does not accept
old bodies needs a VERSION that is higher by one, and an upcaster from the previous version, a pure function of the
body:

    @upcaster("nebula.vm.VmRequested", 1)
    def _(body: Body) -> Body:
        return {**body, "region": "default"}

Upcasters stay at the end of this file for ever. They change what readers get, never what is stored: digests cover the
stored bytes. A type, or a version of one, that this program does not know is parsed as `Foreign`. So upgrade readers
before writers.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pydantic_core import from_json, to_json

import domain
from domain.base import Event, Foreign, event_type, event_types
from runtime.bus.header_text import decoded

Body = dict[str, Any]
Upcaster = Callable[[Body], Body]

TYPE_VERSION = "ce-typeversion"

_UPCASTERS: dict[tuple[str, int], Upcaster] = {}


def upcaster(topic: str, version: int) -> Callable[[Upcaster], Upcaster]:
    """Registers a function that converts bodies of `version` to `version + 1`."""

    def register(function: Upcaster) -> Upcaster:
        if (topic, version) in _UPCASTERS:
            raise TypeError(f"two upcasters for version {version} of {topic}")
        _UPCASTERS[topic, version] = function
        return function

    return register


def type_version(headers: Mapping[str, str]) -> int:
    """The version of its type in which an event is stored. Raises ValueError."""
    value = headers.get(TYPE_VERSION)
    return 1 if value is None else int(value)


def opened(headers: Mapping[str, str], body: bytes) -> Event:
    """The typed event; `Foreign` if this program does not know its type, or this version of it.

    Raises pydantic's ValidationError or ValueError for a body that does not fit its type.
    """
    topic = headers["ce-type"]
    kind = event_type(topic) or _all_imported().get(topic)
    version = type_version(headers)
    if kind is None or version > kind.VERSION:
        return Foreign(topic=topic, body=_foreign(body))
    if version == kind.VERSION:
        event = kind.model_validate_json(body)
    else:
        event = kind.model_validate_json(to_json(upcast(topic, version, kind.VERSION, from_json(body))))
    if kind.SIGNED and (actor := headers.get("ce-actor")) is not None:
        vars(event)["created_by"] = decoded(actor)  # the event is frozen, but not shared yet
    return event


def _foreign(body: bytes) -> Any:
    """A body of an unknown type: parsed if it is JSON, else as text."""
    try:
        return from_json(body)
    except ValueError:
        return body.decode(errors="replace")


def upcast(topic: str, version: int, wanted: int, body: Body) -> Body:
    """Convert the body to version `wanted`, one version after the other. Raises LookupError if an
    upcaster is missing.
    """
    for step in range(version, wanted):
        function = _UPCASTERS.get((topic, step))
        if function is None:
            raise LookupError(f"no upcaster for version {step} of {topic}")
        body = function(body)
    return body


def all_types() -> dict[str, type[Event]]:
    """All types of events of the domain, by wire name. It imports all modules of the domain."""
    for module in pkgutil.iter_modules(domain.__path__):
        importlib.import_module(f"domain.{module.name}")
    return {topic: kind for topic, kind in event_types() if kind.__module__.startswith("domain.")}


@cache
def _all_imported() -> dict[str, type[Event]]:
    """`all_types`, computed once per process."""
    return all_types()


def missing() -> list[str]:
    """The missing upcasters, for a test: a line each."""
    return [
        f"no upcaster for version {version} of {topic}"
        for topic, kind in all_types().items()
        for version in range(1, kind.VERSION)
        if (topic, version) not in _UPCASTERS
    ]


# ── upcasters ───────────────────────────────────────────────────────────────────────────────────────────────────────
