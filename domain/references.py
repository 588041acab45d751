"""References between aggregates. Of the kinds with `usable`, a resource is deleted only if nothing refers to it."""

from dataclasses import dataclass
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
    """Annotation (`Annotated`) of a command's field: the field has the id of one or several resources of a kind.

    The command is refused unless they exist and may be used. The server checks that again in the same append.
    """

    kind: str


@dataclass(frozen=True)
class NamesPrincipal:
    """Annotation (`Annotated`) of a command's field: the field has a principal, such as `user:alice`.

    It names a user or a service account, as `Names` does. Other principals name no resource.
    """


NAMES_PRINCIPAL = NamesPrincipal()
#: The kinds of the principals that are resources, by their sort.
ACCOUNTS = {"user": "user", "service": "service_account"}


def account_of(principal: str) -> Reference | None:
    """The user or service account that a principal is; None for any other principal."""
    sort, _, id_ = principal.partition(":")
    return Reference(ACCOUNTS[sort], id_) if sort in ACCOUNTS and id_ else None


@cache
def principals_in(command: type[Command]) -> tuple[str, ...]:
    """The fields of a command that name a principal."""
    return tuple(name for name, info in command.model_fields.items() if NAMES_PRINCIPAL in info.metadata)


@cache
def names_in(command: type[Command]) -> tuple[tuple[str, str], ...]:
    """The fields of a command that name other resources: pairs of field and kind."""
    return tuple(
        (name, note.kind)
        for name, info in command.model_fields.items()
        for note in info.metadata
        if isinstance(note, Names)
    )


class LookedUp(NamedTuple):
    """Annotation (`Annotated`) of a command's field: handlers fill it in, callers do not."""


LOOKED_UP = LookedUp()


def looked_up_in(command: type[Command]) -> list[str]:
    """The fields of a command that handlers fill in."""
    return [name for name, info in command.model_fields.items() if LOOKED_UP in info.metadata]


class Users(Value):
    """The ids of the resources that refer to an aggregate, by kind."""

    ids: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    def of(self, kind: str) -> tuple[str, ...]:
        return self.ids.get(kind, ())

    def counted(self) -> str:
        """Their number by kind, such as `1 projects and 2 VMs`; empty if there are none. New kinds count as well."""
        counts = {kind: len(ids) for kind, ids in sorted(self.ids.items()) if ids}
        return " and ".join(f"{count} {'VM' if kind == 'vm' else kind}s" for kind, count in counts.items())


class FinishDeletion(Command):
    """The second step of a deletion. `users`: who used the aggregate at the position where the deletion began."""

    id: Slug
    users: Users = Users()


def tags(names: tuple[str, ...]) -> frozenset[Reference]:
    return frozenset(Reference("tag", name) for name in names)
