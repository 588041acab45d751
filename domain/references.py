"""What aggregates refer to. A project, a tag or an image is deleted only when nothing refers to it."""

from functools import cache
from typing import NamedTuple

from pydantic import Field

from domain.base import Command, Slug, Value


class Reference(NamedTuple):
    """An aggregate that another one refers to."""

    kind: str
    id: str


NONE: frozenset[Reference] = frozenset()


class Names(NamedTuple):
    """Stands in a command's field (`Annotated`): the field names one resource of a kind, or several of them.

    They are there and may be used, or the command is refused; the server checks that in the same append.
    """

    kind: str


@cache
def names_in(command: type[Command]) -> tuple[tuple[str, str], ...]:
    """The fields of a command that name other resources, each with their kind."""
    return tuple(
        (name, note.kind)
        for name, info in command.model_fields.items()
        for note in info.metadata
        if isinstance(note, Names)
    )


class LookedUp(NamedTuple):
    """Stands in a command's field (`Annotated`): handlers fill it in, nobody asks for it."""


LOOKED_UP = LookedUp()


def looked_up_in(command: type[Command]) -> list[str]:
    """The fields of a command that handlers fill in."""
    return [name for name, info in command.model_fields.items() if LOOKED_UP in info.metadata]


class Users(Value):
    """The ids of those that refer to an aggregate, by their kind."""

    ids: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    def of(self, kind: str) -> tuple[str, ...]:
        return self.ids.get(kind, ())


class FinishDeletion(Command):
    """Who used an aggregate at the position where its deletion began (`domain/named.py`)."""

    id: Slug
    users: Users = Users()


def tags(names: tuple[str, ...]) -> frozenset[Reference]:
    return frozenset(Reference("tag", name) for name in names)
