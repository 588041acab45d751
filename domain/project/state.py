"""The state of a project, and how events change it."""

from typing import assert_never

from pydantic import Field
from pydantic.dataclasses import dataclass

from domain.access import Role
from domain.base import LENIENT, Event, replace
from domain.named import DeletionBegun, DeletionGivenUp, Named, closing_after, operations_after
from domain.principal import is_bindable
from domain.project.events import (
    ProjectCreated,
    ProjectDeleted,
    ProjectDeletionBegun,
    ProjectDeletionGivenUp,
    ProjectDescribed,
    ProjectEvents,
    ProjectRenamed,
    ProjectRoleBound,
    ProjectRoleUnbound,
    ProjectSshKeysChanged,
    ProjectTagged,
)


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Project(Named):
    """The state of a project. `members`: the roles of principals in it, in alphabetical order of the principals."""

    members: dict[str, Role] = Field(default_factory=dict)


def evolve(project: Project | None, event: Event) -> Project | None:
    """The state after an event. A deleted project's id may be used again; the new project keeps the old operations."""
    if isinstance(event, ProjectCreated):
        return Project(
            id=event.project,
            name=event.name,
            tags=event.tags,
            ssh_keys=event.ssh_keys,
            description=event.description,
            created_by=event.created_by,
            members={event.created_by: Role.ADMIN} if event.created_by and is_bindable(event.created_by) else {},
            created_at=event.at,
            updated_at=event.at,
            operations=operations_after(project, event),
        )
    if project is None or not isinstance(event, ProjectEvents):
        return project
    if isinstance(event, DeletionBegun | DeletionGivenUp):
        return replace(project, closing=closing_after(event))
    return changed(replace(project, updated_at=event.at, operations=operations_after(project, event)), event)


def changed(project: Project, event: ProjectEvents) -> Project:
    match event:
        case ProjectRenamed():
            return replace(project, name=event.name)
        case ProjectTagged():
            return replace(project, tags=event.tags)
        case ProjectSshKeysChanged():
            return replace(project, ssh_keys=event.ssh_keys)
        case ProjectDescribed():
            return replace(project, description=event.description)
        case ProjectRoleBound():
            return replace(project, members=dict(sorted({**project.members, event.principal: event.role}.items())))
        case ProjectRoleUnbound():
            left = {principal: role for principal, role in project.members.items() if principal != event.principal}
            return replace(project, members=left)
        case ProjectDeleted():
            return replace(project, deleted=True, closing=None)
        case ProjectCreated() | ProjectDeletionBegun() | ProjectDeletionGivenUp():
            return project
        case _:
            assert_never(event)
