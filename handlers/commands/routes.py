"""The write side as one table, made of all kinds and their verbs: which command each subject stands for."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from domain.base import Command
from domain.kind import Kind
from domain.kinds import KINDS
from domain.references import looked_up_in, names_in
from domain.verb import Verb
from eventstore.log.envelope import Ref
from handlers.commands.lookups import LOOKUPS, Lookup, Prepare, check_named, users_of


@dataclass(frozen=True)
class Route:
    """One row: a verb of a kind, and what its command looks up."""

    kind: Kind[Any, Any]
    verb: Verb[Any]
    lookup: Lookup

    def __post_init__(self) -> None:
        """Raises TypeError where nothing fills in what handlers have to: such a command does not start."""
        forgotten = looked_up_in(self.command)
        if forgotten and self.lookup.prepare is None and not self.verb.two_steps:
            raise TypeError(f"nothing in LOOKUPS fills in {', '.join(forgotten)} of {self.command.__name__}")

    @property
    def command(self) -> type[Command]:
        command: type[Command] = self.verb.command
        return command

    @cached_property
    def operates(self) -> bool:
        """Whether a person's command is an operation, with a record."""
        return "operation" in self.command.model_fields

    @cached_property
    def signs(self) -> bool:
        """Whether the command says who asked for it."""
        return "created_by" in self.command.model_fields

    @cached_property
    def prepare(self) -> Prepare | None:
        """What completes the arguments, or refuses them."""
        if self.lookup.prepare is not None:
            return self.lookup.prepare
        if self.verb.two_steps:
            return partial(users_of, self.kind.name)
        return partial(check_named, self.command) if names_in(self.command) else None

    def ref(self, project_id: str, id_: str) -> Ref:
        """Where a resource's events are. Raises ValueError."""
        id_ = self.kind.canonical(id_)
        return Ref(self.kind.project_of(project_id, id_), self.kind.name, id_)


ROUTES: Mapping[tuple[str, str], Route] = {
    (kind.name, verb.name): Route(kind, verb, LOOKUPS.get(verb.command, Lookup()))
    for kind in KINDS.values()
    for verb in kind.verbs
}
