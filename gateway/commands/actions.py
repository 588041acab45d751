"""The commands of the HTTP API, derived from the kinds and their verbs.

A resource is created by POST on its collection, changed by PATCH and deleted by DELETE on its own path. Every other
verb is POST on a path below that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domain import image, node, project, tag, token, vm
from domain.access import Permission
from domain.base import Command
from domain.kind import Kind, Scope
from domain.kinds import KINDS
from domain.verb import Effect, Verb
from gateway.commands import bodies


@dataclass(frozen=True)
class Action:
    """One command of the API. `kind` is also the name of the path parameter that holds the resource's id.

    `permission`: the permission that the caller needs.
    """

    method: str
    path: str
    kind: str
    verb: str
    summary: str
    body: type[bodies.Body]
    permission: Permission

    @property
    def creates(self) -> bool:
        return f"{{{self.kind}}}" not in self.path


#: The bodies whose fields differ from those of their command.
BODIES: Mapping[type[Command], type[bodies.Body]] = {
    vm.CreateVm: bodies.CreateVm,
    vm.StopVm: bodies.Power,
    vm.RestartVm: bodies.Power,
    vm.ResizeVm: bodies.ResizeVm,
    vm.RebuildVm: bodies.RebuildVm,
    vm.ForgetVm: bodies.ForgetVm,
    vm.ChangeVm: bodies.ChangeVm,
    project.CreateProject: bodies.CreateProject,
    project.ChangeProject: bodies.ChangeProject,
    tag.CreateTag: bodies.CreateNamed,
    tag.RenameTag: bodies.RenameTag,
    image.RegisterImage: bodies.RegisterImage,
    node.SetSeedUrl: bodies.SeedUrl,
    token.IssueToken: bodies.IssueToken,
}


def collection(kind: Kind[Any, Any]) -> str:
    """The path of all resources of a kind."""
    return f"/v1/projects/{{project}}/{kind.plural}" if kind.scope is Scope.PROJECT else f"/v1/{kind.plural}"


def item(kind: Kind[Any, Any]) -> str:
    """The path of one resource of a kind."""
    return f"{collection(kind)}/{{{kind.name}}}"


def action(kind: Kind[Any, Any], verb: Verb[Any]) -> Action:
    """The call for a verb. Raises ValueError for a verb that is not a call of the API."""
    match verb.effect:
        case Effect.CREATES:
            method, path = "POST", collection(kind)
        case Effect.CHANGES:
            method, path = "PATCH", item(kind)
        case Effect.DELETES:
            method, path = "DELETE", item(kind)
        case Effect.ACTS:
            method, path = "POST", f"{item(kind)}/{verb.name}"
        case Effect.NOTES:
            raise ValueError(f"{verb.name} is not a call of the API")
    body = BODIES.get(verb.command) or bodies.of(verb.command, kind.name, verb.effect)
    return Action(method, path, kind.name, verb.name, verb.summary, body, verb.permission)


ACTIONS = tuple(action(kind, verb) for kind in KINDS.values() for verb in kind.verbs if verb.effect is not Effect.NOTES)
