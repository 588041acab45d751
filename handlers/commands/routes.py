"""The table of the write side, derived from all kinds and their verbs: the command of each subject."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from domain.base import Command
from domain.kind import Kind
from domain.kinds import KINDS
from domain.references import looked_up_in, names_in, principals_in
from domain.verb import Verb
from eventstore.log.envelope import Ref
from handlers.commands.lookups import Lookup, Prepare, check_named, lookup_of, users_of


@dataclass(frozen=True)
class Route:
    """One row: a verb of a kind, and the lookups of its command."""

    kind: Kind[Any, Any]
    verb: Verb[Any]
    lookup: Lookup

    def __post_init__(self) -> None:
        """Raises TypeError if a field that handlers have to fill in has no lookup: no process starts with that."""
        forgotten = looked_up_in(self.command)
        if forgotten and self.lookup.prepare is None and not self.verb.two_steps:
            raise TypeError(f"nothing in LOOKUPS fills in {', '.join(forgotten)} of {self.command.__name__}")

    @property
    def command(self) -> type[Command]:
        command: type[Command] = self.verb.command
        return command

    @cached_property
    def operates(self) -> bool:
        """Whether the command becomes an operation, with a record."""
        return "operation" in self.command.model_fields

    @cached_property
    def signs(self) -> bool:
        """Whether the command has a field for its actor."""
        return "created_by" in self.command.model_fields

    @cached_property
    def prepare(self) -> Prepare | None:
        """The function that completes the arguments, or refuses them; None if there is nothing to do."""
        if self.lookup.prepare is not None:
            return self.lookup.prepare
        if self.verb.two_steps:
            return partial(users_of, self.kind.name)
        named = names_in(self.command) or principals_in(self.command)
        return partial(check_named, self.command) if named else None

    def ref(self, project_id: str, id_: str) -> Ref:
        """The reference of a resource's aggregate. Raises ValueError."""
        id_ = self.kind.canonical(id_)
        return Ref(self.kind.project_of(project_id, id_), self.kind.name, id_)


ROUTES: Mapping[tuple[str, str], Route] = {
    (kind.name, verb.name): Route(kind, verb, lookup_of(verb)) for kind in KINDS.values() for verb in kind.verbs
}
