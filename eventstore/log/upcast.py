"""Old shapes of events, made new before anybody folds them.

An event class has a VERSION, which stands in the log as `ce-typeversion` (left out where it is 1). A change that old
bodies do not fit raises VERSION by one and comes with an upcaster from the version before, a pure function of the
body:

    @upcaster("nebula.vm.VmRequested", 1)
    def _(body: Body) -> Body:
        return {**body, "region": "default"}

Upcasters live at the end of this file, for ever. They change what readers see, never what is stored: digests are over
the bytes as they were written. What is newer than this program (a type, or a version of one) passes through as
`Foreign`, so readers are brought up to date before writers.
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
    """Registers a function that turns bodies of `version` into bodies of `version + 1`."""

    def register(function: Upcaster) -> Upcaster:
        if (topic, version) in _UPCASTERS:
            raise TypeError(f"two upcasters for version {version} of {topic}")
        _UPCASTERS[topic, version] = function
        return function

    return register


def type_version(headers: Mapping[str, str]) -> int:
    """The version of its type that an event was written in."""
    said = headers.get(TYPE_VERSION)
    return 1 if said is None else int(said)


def opened(headers: Mapping[str, str], body: bytes) -> Event:
    """The event as this program knows it; `Foreign` where it does not know the type, or not this version of it.

    Raises pydantic's ValidationError or ValueError for a body that is not what its type says.
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
        vars(event)["created_by"] = decoded(actor)  # nobody else has seen it yet
    return event


def _foreign(body: bytes) -> Any:
    """A body that is not ours to judge: JSON where it is JSON, else text."""
    try:
        return from_json(body)
    except ValueError:
        return body.decode(errors="replace")


def upcast(topic: str, version: int, wanted: int, body: Body) -> Body:
    """The body in version `wanted`, one step after the other. Raises LookupError where a step is missing."""
    for step in range(version, wanted):
        function = _UPCASTERS.get((topic, step))
        if function is None:
            raise LookupError(f"no upcaster for version {step} of {topic}")
        body = function(body)
    return body


def all_types() -> dict[str, type[Event]]:
    """Every type of event there is, by wire name: the whole domain, whatever has been imported so far."""
    for module in pkgutil.iter_modules(domain.__path__):
        importlib.import_module(f"domain.{module.name}")
    return {topic: kind for topic, kind in event_types() if kind.__module__.startswith("domain.")}


@cache
def _all_imported() -> dict[str, type[Event]]:
    """A type is known although nobody in this process has imported its module yet."""
    return all_types()


def missing() -> list[str]:
    """What should be registered and is not, for a test to look at: a line each."""
    return [
        f"no upcaster for version {version} of {topic}"
        for topic, kind in all_types().items()
        for version in range(1, kind.VERSION)
        if (topic, version) not in _UPCASTERS
    ]


# ── the old shapes ──────────────────────────────────────────────────────────────────────────────────────────────────
