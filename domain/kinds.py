"""All kinds of resources, by name. Subjects, routes, tables, calls of the API and descriptions follow from them."""

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, get_args

from domain.base import Command, event_types
from domain.enrollment import ENROLLMENT
from domain.flavor import FLAVOR
from domain.image.kind import IMAGE
from domain.kind import Kind, no_references
from domain.node.kind import NODE
from domain.project import PROJECT
from domain.references import ACCOUNTS, NONE, Reference, names_in, principals_in
from domain.service_account import SERVICE_ACCOUNT
from domain.tag import TAG
from domain.token import TOKEN
from domain.user import USER
from domain.verb import Effect
from domain.vm.kind import VM

KNOWN: tuple[Kind[Any, Any], ...] = (VM, PROJECT, TAG, IMAGE, FLAVOR, NODE, ENROLLMENT, USER, SERVICE_ACCOUNT, TOKEN)
KINDS: Mapping[str, Kind[Any, Any]] = {kind.name: kind for kind in KNOWN}


WITHOUT_KIND = ("log", "operation", "maintenance")
"""The second word of the wire names of events that belong to no kind: about the log, an idempotency key, or the bus."""

NAMES = (*KINDS, "operation", "maintenance")
"""The names of all sorts of aggregates: the kinds, `operation` for idempotency keys, by the operation's id, and
`maintenance` for what was done to the streams of the bus."""


def references(kind: str, state: object) -> frozenset[Reference]:
    """The resources that a state refers to. A deleted resource refers to nothing."""
    return KINDS[kind].refers(state) if state is not None and kind in KINDS else NONE


def faults(kinds: Mapping[str, Kind[Any, Any]]) -> Iterator[str]:
    """What is missing or contradictory in these kinds, in sentences for programmers."""
    claimed = [event for kind in kinds.values() for event in kind.all_events]
    types = [(topic, event) for topic, event in event_types() if topic.startswith("nebula.")]
    yield from (
        f"no kind says that {topic} is its event"
        for topic, event in types
        if event not in claimed and topic.split(".")[1] not in WITHOUT_KIND
    )
    for kind in kinds.values():
        for event in kind.all_events:
            topic = vars(event).get("TOPIC")
            if topic is None or not topic.startswith(f"nebula.{kind.name}."):
                yield f"{event.__name__}, an event of kind {kind.name}, has no TOPIC nebula.{kind.name}.…"
            elif claimed.count(event) > 1:
                yield f"two kinds say that {topic} is their event"
        names = [verb.name for verb in kind.verbs]
        yield from (f"two verbs of kind {kind.name} have the name {name}" for name in names if names.count(name) > 1)
        yield from faults_of_references(kind, kinds)
        yield from faults_of_defaults(kind)


def faults_of_references(kind: Kind[Any, Any], kinds: Mapping[str, Kind[Any, Any]]) -> Iterator[str]:
    """What is missing in a kind about its references to others, and the references of others to it."""
    commands: list[type[Command]] = [verb.command for verb in kind.verbs]
    named = {name for command in commands for name in names_in(command)}
    named |= {(field, kind) for command in commands for field in principals_in(command) for kind in ACCOUNTS.values()}
    for field, of in named:
        if of not in kinds or kinds[of].usable is None:
            yield f"{field} of kind {kind.name} names a {of}, which is not a kind with `usable`"
    if named and kind.refers is no_references:
        yield f"kind {kind.name} has fields with `Names`, and no `refers`"
    for verb in kind.verbs:
        if verb.effect is Effect.DELETES and kind.usable is not None and not verb.two_steps:
            yield f"others may refer to kind {kind.name}: its verb {verb.name} has to have `two_steps`"
        if verb.two_steps and "users" not in verb.command.model_fields:
            yield f"{verb.command.__name__} has `two_steps`, and no field `users`"


def faults_of_defaults(kind: Kind[Any, Any]) -> Iterator[str]:
    """Fields that may be None and have no default: they could not be read, because the bus and the log omit None."""
    for message in (*kind.all_events, *(verb.command for verb in kind.verbs)):
        for name, field in message.model_fields.items():
            if field.is_required() and NoneType in get_args(field.annotation):
                yield f"{name} of {message.__name__} may be None: give it the default None"


def check() -> None:
    """Raises TypeError if something is missing in a kind. No process starts with such a kind."""
    if found := sorted(set(faults(KINDS))):
        raise TypeError("; ".join(found))


check()
