"""All kinds of resources, by their names. Subjects, routes, tables, calls and descriptions are derived from these."""

from collections.abc import Iterator, Mapping
from typing import Any

from domain.base import Command, event_types
from domain.flavor import FLAVOR
from domain.image.kind import IMAGE
from domain.kind import Kind, nothing
from domain.node.kind import NODE
from domain.project import PROJECT
from domain.references import NONE, Reference, names_in
from domain.tag import TAG
from domain.verb import Effect
from domain.vm.kind import VM

KINDS: Mapping[str, Kind[Any, Any]] = {kind.name: kind for kind in (VM, PROJECT, TAG, IMAGE, FLAVOR, NODE)}


BESIDE = ("log", "operation")
"""What events are about that are of no kind: the log itself, and the keys of callers."""

NAMES = (*KINDS, "operation")
"""All that the log has histories of: the keys of callers as well, each by the operation that used it."""


def references(kind: str, state: Any) -> frozenset[Reference]:
    """What a state refers to. What is deleted refers to nothing."""
    return KINDS[kind].refers(state) if state is not None and kind in KINDS else NONE


def faults(kinds: Mapping[str, Kind[Any, Any]]) -> Iterator[str]:
    """What contradicts itself in these kinds, or was forgotten in them."""
    claimed = [event for kind in kinds.values() for event in kind.all_events]
    types = [(topic, event) for topic, event in event_types() if topic.startswith("nebula.")]
    yield from (
        f"no kind says that {topic} is its event"
        for topic, event in types
        if event not in claimed and topic.split(".")[1] not in BESIDE
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
        yield from references_amiss(kind, kinds)


def references_amiss(kind: Kind[Any, Any], kinds: Mapping[str, Kind[Any, Any]]) -> Iterator[str]:
    """What a kind forgets about what it names, and about being named itself."""
    commands: list[type[Command]] = [verb.command for verb in kind.verbs]
    named = {name for command in commands for name in names_in(command)}
    for field, of in named:
        if of not in kinds or kinds[of].usable is None:
            yield f"{field} of kind {kind.name} names a {of}, which is no kind that says when one is `usable`"
    if named and kind.refers is nothing:
        yield f"kind {kind.name} names others, and does not say what a state `refers` to"
    for verb in kind.verbs:
        if verb.effect is Effect.DELETES and kind.usable is not None and not verb.two_steps:
            yield f"others refer to kind {kind.name}, so its verb {verb.name} has `two_steps`"
        if verb.two_steps and "users" not in verb.command.model_fields:
            yield f"{verb.command.__name__} has `two_steps`, and no field `users`"


def check() -> None:
    """Raises TypeError for kinds of which a part was forgotten: they do not start."""
    if found := sorted(set(faults(KINDS))):
        raise TypeError("; ".join(found))


check()
