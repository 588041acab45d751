"""A verb: one thing that can be done to a resource of a kind, described by one value.

Routes, calls of the API, and the life of operations are derived from these values (`domain/kinds.py` has them all).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from domain.access import Access, Permission
from domain.base import Command, Event

C = TypeVar("C", bound=Command)

ON_ACCEPTANCE: tuple[type[Event], ...] = ()
"""For `fulfilled_by`: the operation is done with the event that accepts it."""


class Effect(StrEnum):
    """What a verb does to its resource."""

    CREATES = "creates"
    CHANGES = "changes"
    DELETES = "deletes"
    ACTS = "acts"
    NOTES = "notes"
    """Not a call of the API: the platform itself uses it, or an earlier version of the API did."""


def admitted(_: Access, command: C, __: object) -> C:
    """The default of `admit`: whoever has the permission may give the command."""
    return command


@dataclass(frozen=True, kw_only=True)
class Verb(Generic[C]):
    """A verb of a kind.

    `accepted_by`: the events with which its operation is accepted. `fulfilled_by`: the events after which the
    operation has succeeded; ON_ACCEPTANCE if it has when it is accepted. `two_steps`: a deletion in two steps
    (`domain/named.py`); the caller gets the reply after the second one. `admit(access, command, state)`: what follows
    from more than the permission: the command as this caller may give it, or Rejected.
    """

    name: str
    command: type[C]
    summary: str
    effect: Effect
    permission: Permission
    accepted_by: tuple[type[Event], ...]
    fulfilled_by: tuple[type[Event], ...]
    two_steps: bool = False
    admit: Callable[[Access, C, Any], C] = admitted

    @property
    def lasting(self) -> bool:
        """Whether its operation is still running when it is accepted."""
        return bool(self.fulfilled_by)
