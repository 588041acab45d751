"""A kind of resource, described by one value. All tables over the kinds are derived from `domain/kinds.py`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from domain.access import Permission
from domain.base import Command, Event
from domain.references import NONE, Reference
from domain.verb import Verb

SYSTEM = "system"
"""The project token in subjects of resources that belong to no project. No project may have this id."""

S = TypeVar("S")
C = TypeVar("C", bound=Command)


class Scope(StrEnum):
    """Where the resources of a kind are."""

    PROJECT = "project"
    CLOUD = "cloud"
    ITSELF = "itself"
    """For projects: each is its own scope."""


class Id(StrEnum):
    """The form of a resource's id."""

    UUID = "uuid"
    SLUG = "slug"


class Outcome(StrEnum):
    """The effect of an event on the status of its operation."""

    SAME = "same"
    RUNNING = "running"
    FAILED = "failed"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True)
class Step:
    """The effect of an event on its operation. `deadline`: the new one, if any; `done`, `total`: progress, in bytes."""

    outcome: Outcome = Outcome.RUNNING
    code: str = ""
    detail: str = ""
    field: str | None = None
    deadline: datetime | None = None
    done: int | None = None
    total: int | None = None


class CancelReason(StrEnum):
    """Why an event cancels another operation than its own. The value is the code of that operation's problem."""

    OVERTAKEN = "operation_cancelled"
    ABANDONED = "abandoned"


def running(_: Event) -> Step:
    """The default of `step`: the operation is running."""
    return Step()


def no_references(_: object) -> frozenset[Reference]:
    """The default of `refers`."""
    return NONE


def always(_: object, __: object) -> bool:
    """The default of `may_differ`."""
    return True


def nobody(_: object) -> None:
    """The default of `owner`."""
    return


def never(*_: object) -> None:
    """The default of `cancels` and `overtakes`."""
    return


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[S, C]):
    """A kind of resource, with everything that the platform has to know of it.

    - `title`: the word for one resource, in texts for people; `plural`: the word in paths of the API.
    - `readable_by`: the permission to read resources of the kind.
    - `owner`: the project that a resource of the cloud belongs to; None if it belongs to the whole cloud.
    - `events`: the events of the kind that do not open an operation of a verb.
    - `decide`, `evolve`: the rules.
    - `deleted`: whether a state is that of a deleted resource.
    - `refers`: the resources that a state refers to. `may_differ`: a cheap test whether that can differ between the
      states before and after an event.
    - `usable(state, id, project)`: the state, if something new in the project may refer to it; else it raises Rejected.
      Nothing can refer to a kind without it.
    - `step`: the effect of an event on its operation.
    - `overtakes(event, state before)`: the id of the other operation that the event may cancel.
    - `cancels(event, id, verb)`: why the event cancels the operation with this id and verb; None if it does not.
    """

    name: str
    plural: str
    title: str
    scope: Scope
    id: Id
    readable_by: Permission
    state: type[S]
    verbs: tuple[Verb[Any], ...]
    events: tuple[type[Event], ...]
    decide: Callable[[S | None, C], Sequence[Event]]
    evolve: Callable[[S | None, Event], S | None]
    deleted: Callable[[S], bool]
    refers: Callable[[S], frozenset[Reference]] = no_references
    usable: Callable[[S | None, str, str], S] | None = None
    may_differ: Callable[[S, S], bool] = always
    owner: Callable[[S], str | None] = nobody
    step: Callable[[Event], Step] = running
    cancels: Callable[[Event, str, str], CancelReason | None] = never
    overtakes: Callable[[Event, S | None], str | None] = never

    @property
    def titles(self) -> str:
        """The word for several resources, in texts for people."""
        return f"{self.title}s"

    def project_of(self, project: str, id_: str) -> str:
        """The project token in a resource's subject. `project`: the project that it is in, if the kind has one."""
        match self.scope:
            case Scope.PROJECT:
                return project
            case Scope.ITSELF:
                return id_
            case Scope.CLOUD:
                return SYSTEM

    def owner_of(self, project: str, state: S | None) -> str:
        """The project whose members may see a resource, its events and its operations; SYSTEM if there is none.

        `project`: the project token in its subject.
        """
        if self.scope is not Scope.CLOUD or state is None:
            return project
        return self.owner(state) or SYSTEM

    def canonical(self, id_: str) -> str:
        """The canonical form of an id: a UUID in lower case."""
        return id_.lower() if self.id is Id.UUID else id_

    @cached_property
    def closes(self) -> bool:
        """Whether its resources are deleted in two steps; their state then has a field `closing`."""
        return any(verb.two_steps for verb in self.verbs)

    @cached_property
    def all_events(self) -> tuple[type[Event], ...]:
        """All types of events of the kind."""
        return (*dict.fromkeys(event for verb in self.verbs for event in verb.accepted_by), *self.events)

    @cached_property
    def stored(self) -> TypeAdapter[S]:
        """Converts a state to JSON and back."""
        return TypeAdapter(self.state)
