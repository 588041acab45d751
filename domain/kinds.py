"""All kinds of resources, by their names. Subjects, routes, tables, calls and descriptions are derived from these."""

from collections.abc import Mapping
from typing import Any

from domain.base import event_types
from domain.flavor import FLAVOR
from domain.image.kind import IMAGE
from domain.kind import Kind
from domain.node.kind import NODE
from domain.project import PROJECT
from domain.references import NONE, Reference
from domain.tag import TAG
from domain.vm.kind import VM

KINDS: Mapping[str, Kind[Any, Any]] = {kind.name: kind for kind in (VM, PROJECT, TAG, IMAGE, FLAVOR, NODE)}


NAMES = (*KINDS, "operation")
"""All that the log has histories of: the keys of callers as well, each by the operation that used it."""


def references(kind: str, state: Any) -> frozenset[Reference]:
    """What a state refers to. What is deleted refers to nothing."""
    return KINDS[kind].refers(state) if state is not None and kind in KINDS else NONE


def check() -> None:
    """Raises TypeError for a type of event that no kind says is its own, and for one that two do."""
    claimed = [event for kind in KINDS.values() for event in kind.all_events]
    twice = {event.TOPIC for event in claimed if claimed.count(event) > 1}
    nobody = {topic for topic, event in event_types() if topic.split(".")[1] in KINDS and event not in claimed}
    if twice or nobody:
        raise TypeError(f"claimed by no kind: {sorted(nobody)}; by two: {sorted(twice)}")


check()
