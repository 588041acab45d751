"""A kind of resource: one value. What must know all kinds is derived from `domain/kinds.py`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from domain.base import Command, Event
from domain.references import NONE, Reference
from domain.verb import Verb

SYSTEM = "system"
"""The project token of what no project owns: projects may not take this id."""

S = TypeVar("S")
C = TypeVar("C", bound=Command)


class Scope(StrEnum):
    """Where the resources of a kind are."""

    PROJECT = "project"
    CLOUD = "cloud"
    ITSELF = "itself"
    """A project is its own."""


class Id(StrEnum):
    """What names a resource of a kind."""

    UUID = "uuid"
    SLUG = "slug"


class Outcome(StrEnum):
    """What an event makes of the operation that it belongs to."""

    SAME = "same"
    RUNNING = "running"
    FAILED = "failed"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True)
class Step:
    """What an event makes of its operation. `deadline`: the new one; `done` of `total` bytes: how far it is."""

    outcome: Outcome = Outcome.RUNNING
    code: str = ""
    detail: str = ""
    field: str | None = None
    deadline: datetime | None = None
    done: int | None = None
    total: int | None = None


class Cancelled(StrEnum):
    """Why an event ends an operation that is not its own."""

    OVERTAKEN = "operation_cancelled"
    GIVEN_UP = "abandoned"


def runs(_: Event) -> Step:
    """An event after which its operation is under way, and nothing else is known of it."""
    return Step()


def nothing(_: object) -> frozenset[Reference]:
    return NONE


def always(_: object, __: object) -> bool:
    return True


def none(*_: object) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[S, C]):
    """`title`: one of them, as people write it; `plural`: as in paths of the API.

    `usable`: the resource, where something new may refer to it: given its state, its id, and whose project that is;
    it raises Rejected. A kind without it is not referred to.
    `decide` and `evolve` are the rules. `deleted`: whether a state is that of a resource that is gone. `refers`: what a
    state refers to; `may_differ` says cheaply whether that may differ between two states in a row. `step`: what an
    event makes of its operation. `cancels`: whether, and why, an event ends another operation, of this id and verb;
    `overtakes`: the id of the one that it may end, given the state before it.

    `events`: those that no verb opens an operation with.
    """

    name: str
    plural: str
    title: str
    scope: Scope
    id: Id
    state: type[S]
    verbs: tuple[Verb[Any], ...]
    events: tuple[type[Event], ...]
    decide: Callable[[S | None, C], Sequence[Event]]
    evolve: Callable[[S | None, Event], S | None]
    deleted: Callable[[S], bool]
    refers: Callable[[S], frozenset[Reference]] = nothing
    usable: Callable[[S | None, str, str], S] | None = None
    may_differ: Callable[[S, S], bool] = always
    step: Callable[[Event], Step] = runs
    cancels: Callable[[Event, str, str], Cancelled | None] = none
    overtakes: Callable[[Event, S | None], str | None] = none

    @property
    def titles(self) -> str:
        """Many of them, as people write it."""
        return f"{self.title}s"

    def project_of(self, project: str, id_: str) -> str:
        """The project token of a resource's subject, given the project that it is in, if any, and its id."""
        match self.scope:
            case Scope.PROJECT:
                return project
            case Scope.ITSELF:
                return id_
            case Scope.CLOUD:
                return SYSTEM

    def spelled(self, id_: str) -> str:
        """An id in its one spelling: a UUID is one in every other as well."""
        return id_.lower() if self.id is Id.UUID else id_

    @cached_property
    def closes(self) -> bool:
        """Whether its resources are deleted in two steps, and have a `closing` in between."""
        return any(verb.two_steps for verb in self.verbs)

    @cached_property
    def all_events(self) -> tuple[type[Event], ...]:
        """Every type of event that a resource of this kind may have."""
        return (*dict.fromkeys(event for verb in self.verbs for event in verb.opens), *self.events)

    @cached_property
    def stored(self) -> TypeAdapter[S]:
        """How a state is written as JSON and read again."""
        return TypeAdapter(self.state)
