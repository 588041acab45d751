"""A verb: one thing that may be asked of a resource of a kind. All that is known of it stands in one value.

Routes, calls of the API, operations and their life follow from these values (`domain/kinds.py` has them all).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from domain.access import Permission
from domain.base import Command, Event

C = TypeVar("C", bound=Command)

AT_ONCE: tuple[type[Event], ...] = ()
"""What fulfils a verb whose operation is done with the event that accepts it."""


class Effect(StrEnum):
    """What a verb does to its resource."""

    CREATES = "creates"
    CHANGES = "changes"
    DELETES = "deletes"
    ACTS = "acts"
    NOTES = "notes"
    """It is no call of the API: the platform says it, or an earlier version of the API did."""


@dataclass(frozen=True, kw_only=True)
class Verb(Generic[C]):
    """`opens`: the events by which its operation is accepted. `fulfilled_by`: what fulfils the operation, or AT_ONCE,
    where it is done as soon as it is accepted.

    `two_steps`: a deletion that is answered once it is decided (`domain/named.py`).
    """

    name: str
    command: type[C]
    summary: str
    effect: Effect
    permission: Permission
    opens: tuple[type[Event], ...]
    fulfilled_by: tuple[type[Event], ...]
    two_steps: bool = False

    @property
    def lasting(self) -> bool:
        """Whether its operation goes on after it was accepted."""
        return bool(self.fulfilled_by)
