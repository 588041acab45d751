"""The decisions on projects."""

from typing import assert_never

from domain.access import Access, Grant
from domain.base import Category, Rejected, being_deleted
from domain.kind import SYSTEM
from domain.named import deletion_fields, is_repeat, operation_fields
from domain.principal import cannot_give
from domain.project.commands import (
    BindRole,
    ChangeProject,
    CreateProject,
    DeleteProject,
    ProjectCommand,
    ProjectCommands,
    UnbindRole,
)
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
from domain.project.state import Project
from domain.references import FinishDeletion, Users

MOST_MEMBERS = 1000


def usable(project: Project | None, id_: str, _: str = "") -> Project:
    """The project, if something new may be created in it. Raises Rejected."""
    if project is None or project.deleted:
        raise Rejected("project_not_found", f"there is no project {id_}", Category.NOT_FOUND, field="project")
    if project.closing is not None:
        raise being_deleted("project", id_, field="project")
    return project


def decide(project: Project | None, command: ProjectCommands) -> list[ProjectEvents]:
    """The events that follow from a command on a project. Raises Rejected."""
    if isinstance(command, FinishDeletion):
        return finish(project, command)
    if is_repeat("project", project, command):
        return []
    if isinstance(command, CreateProject):
        return create(project, command)
    if project is None:
        raise Rejected(
            "project_not_found", f"there is no project {command.project}", Category.NOT_FOUND, field="project"
        )
    if project.deleted:
        raise Rejected("project_deleted", f"project {project.id} was deleted", Category.GONE)
    match command:
        case ChangeProject():
            return change(command)
        case BindRole():
            return bind(project, command)
        case UnbindRole():
            if command.principal not in project.members:
                detail = f"{command.principal} has no role in project {project.id}"
                raise Rejected("not_bound", detail, field="principal")
            return [ProjectRoleUnbound(**operation_fields(command), principal=command.principal)]
        case DeleteProject():
            used = in_use(project, command.users)
            if used is not None:
                raise used
            return [ProjectDeletionBegun(**deletion_fields(command))]
        case _:
            assert_never(command)


def create(project: Project | None, command: CreateProject) -> list[ProjectEvents]:
    if command.project == SYSTEM:
        raise Rejected("reserved_id", f"the id {SYSTEM} is reserved; choose another id", Category.INVALID, field="id")
    if project is not None and not project.deleted:
        raise Rejected("project_exists", f"there is a project {project.id} already; choose another id", field="id")
    if left := belonging(command.users):
        detail = f"there are still {left} of an earlier project {command.project}, which was deleted; delete them first"
        raise Rejected("project_not_empty", detail, field="id")
    return [
        ProjectCreated(
            **operation_fields(command),
            project=command.project,
            name=command.name,
            tags=command.tags,
            ssh_keys=command.ssh_keys,
            description=command.description,
            created_by=command.created_by,
        )
    ]


def change(command: ChangeProject) -> list[ProjectEvents]:
    if all(value is None for value in (command.name, command.tags, command.ssh_keys, command.description)):
        raise Rejected(
            "invalid_request", "nothing to change: give a name, tags, ssh_keys or a description", Category.INVALID
        )
    events: list[ProjectEvents] = []
    if command.name is not None:
        events.append(ProjectRenamed(**operation_fields(command), name=command.name))
    if command.tags is not None:
        events.append(ProjectTagged(**operation_fields(command), tags=command.tags))
    if command.ssh_keys is not None:
        events.append(ProjectSshKeysChanged(**operation_fields(command), ssh_keys=command.ssh_keys))
    if command.description is not None:
        events.append(ProjectDescribed(**operation_fields(command), description=command.description))
    return events


def bind(project: Project, command: BindRole) -> list[ProjectEvents]:
    if command.principal not in project.members and len(project.members) >= MOST_MEMBERS:
        raise Rejected("too_many_members", f"a project may have at most {MOST_MEMBERS} members", field="principal")
    return [ProjectRoleBound(**operation_fields(command), principal=command.principal, role=command.role)]


def admit(access: Access, command: ProjectCommand, _: Project | None) -> ProjectCommand:
    """Nobody gives a role whose permissions they do not have themselves. Raises Rejected."""
    if isinstance(command, BindRole) and not access.has(Grant(command.role, command.project)):
        raise cannot_give(command.role)
    return command


def in_use(project: Project, users: Users) -> Rejected | None:
    """Why a project cannot be deleted: something belongs to it, whatever its kind is."""
    if left := belonging(users):
        return Rejected("project_not_empty", f"project {project.id} still has {left}; delete them first")
    return None


def belonging(users: Users) -> str:
    """What belongs to a project, in words: VMs by their number, other resources by their ids. Empty if nothing does."""
    named = [f"{kind}s ({', '.join(ids[:10])})" for kind, ids in sorted(users.ids.items()) if ids and kind != "vm"]
    return " and ".join([*named, *([f"{len(vms)} VMs"] if (vms := users.of("vm")) else [])])


def finish(project: Project | None, command: FinishDeletion) -> list[ProjectEvents]:
    if project is None or project.closing is None:
        return []
    used = in_use(project, command.users)
    if used is not None:
        return [ProjectDeletionGivenUp(at=command.at, code=used.code, detail=used.detail)]
    deletion = project.closing
    return [ProjectDeleted(at=command.at, operation=deletion.operation, fingerprint=deletion.fingerprint)]
