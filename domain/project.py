"""Projects own VMs, carry tags, and carry the SSH keys of those who may log in to all of their VMs.

Their life is in `named.py`.
"""

from typing import Annotated, assert_never

from pydantic import AfterValidator, Field
from pydantic.json_schema import SkipJsonSchema

from domain.base import Command, Event, Rejected, Remark, Slug, Tags, Title, being_deleted, unique
from domain.named import (
    Asked,
    DeletionBegun,
    DeletionGivenUp,
    Done,
    Named,
    asked_before,
    begun,
    changed,
    closing,
    created,
    stamp,
)

SYSTEM = "system"
"""The project token of what no project owns: projects may not take this id."""

SshKeys = Annotated[tuple[str, ...], Field(max_length=64), AfterValidator(unique)]
"""OpenSSH public keys, one line each."""

Project = Named


class ProjectCommand(Asked):
    project: Slug


class CreateProject(ProjectCommand):
    VERB = "create"
    name: Title
    tags: Tags = ()
    ssh_keys: SshKeys = ()
    description: Remark | None = None
    created_by: str | None = None
    vms: int = Field(default=0, description="VMs that still exist of an earlier project with this id")


class ChangeProject(ProjectCommand):
    """Rename it, tag it, give it other SSH keys: what is None stays."""

    VERB = "change"
    name: Title | None = None
    tags: Tags | None = None
    ssh_keys: SshKeys | None = None
    description: Remark | None = None


class DeleteProject(ProjectCommand):
    VERB = "delete"
    vms: int = Field(default=0, description="VMs that exist in it")
    images: tuple[str, ...] = Field(default=(), description="images that belong to it")


class FinishProjectDeletion(Command):
    """Who used the project at the position where its deletion began."""

    project: Slug
    vms: int = 0
    images: tuple[str, ...] = ()


ProjectCommands = CreateProject | ChangeProject | DeleteProject | FinishProjectDeletion


class ProjectCreated(Done):
    TOPIC = "nebula.project.ProjectCreated"
    VERB = CreateProject.VERB
    SIGNED = True
    project: str
    name: str
    tags: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    description: str | None = None
    created_by: SkipJsonSchema[str | None] = Field(default=None, exclude=True)


class ProjectRenamed(Done):
    TOPIC = "nebula.project.ProjectRenamed"
    VERB = ChangeProject.VERB
    name: str


class ProjectTagged(Done):
    TOPIC = "nebula.project.ProjectTagged"
    VERB = ChangeProject.VERB
    tags: tuple[str, ...]


class ProjectSshKeysChanged(Done):
    """All guests of the project are told `ssh_keys` together with their own, whenever they look at their seed."""

    TOPIC = "nebula.project.ProjectSshKeysChanged"
    VERB = ChangeProject.VERB
    ssh_keys: tuple[str, ...]


class ProjectDescribed(Done):
    """What it is for, in somebody's words; an empty description takes away what there was."""

    TOPIC = "nebula.project.ProjectDescribed"
    VERB = ChangeProject.VERB
    description: str


class ProjectDeleted(Done):
    TOPIC = "nebula.project.ProjectDeleted"
    VERB = DeleteProject.VERB


class ProjectDeletionBegun(DeletionBegun):
    TOPIC = "nebula.project.ProjectDeletionBegun"


class ProjectDeletionGivenUp(DeletionGivenUp):
    TOPIC = "nebula.project.ProjectDeletionGivenUp"


ProjectEvents = (
    ProjectCreated
    | ProjectRenamed
    | ProjectTagged
    | ProjectSshKeysChanged
    | ProjectDescribed
    | ProjectDeletionBegun
    | ProjectDeletionGivenUp
    | ProjectDeleted
)
#: What is done as soon as it is accepted.
DONE: tuple[type[Done], ...] = (
    ProjectCreated,
    ProjectRenamed,
    ProjectTagged,
    ProjectSshKeysChanged,
    ProjectDescribed,
    ProjectDeleted,
)


def usable(project: Project | None, id_: str) -> Project:
    """The project, when something new may be made in it. Raises Rejected."""
    if project is None or project.deleted:
        raise Rejected("project_not_found", f"there is no project {id_}", status=404, field="project")
    if project.closing is not None:
        raise being_deleted("project", id_, field="project")
    return project


def decide(project: Project | None, command: ProjectCommands) -> list[ProjectEvents]:
    """What follows from a command on a project."""
    if isinstance(command, FinishProjectDeletion):
        return finish(project, command)
    if asked_before("project", project, command):
        return []
    if isinstance(command, CreateProject):
        return create(project, command)
    if project is None:
        raise Rejected("project_not_found", f"there is no project {command.project}", status=404, field="project")
    if project.deleted:
        raise Rejected("project_deleted", f"project {project.id} was deleted", status=410)
    match command:
        case ChangeProject():
            return change(command)
        case DeleteProject():
            used = in_use(project, command)
            if used is not None:
                raise used
            return [ProjectDeletionBegun(**begun(command))]
        case _:
            assert_never(command)


def create(project: Project | None, command: CreateProject) -> list[ProjectEvents]:
    if command.project == SYSTEM:
        raise Rejected("reserved_id", f"the id {SYSTEM} is reserved", status=422, field="id")
    if project is not None and not project.deleted:
        raise Rejected("project_exists", f"there is a project {project.id} already", field="id")
    if command.vms:
        detail = f"{command.vms} VMs of a deleted project {command.project} still exist; delete them first"
        raise Rejected("project_not_empty", detail, field="id")
    fields = ("project", "name", "tags", "ssh_keys", "description", "created_by")
    said = {field: getattr(command, field) for field in fields}
    return [ProjectCreated(**stamp(command), **said)]


def change(command: ChangeProject) -> list[ProjectEvents]:
    if all(said is None for said in (command.name, command.tags, command.ssh_keys, command.description)):
        raise Rejected("invalid_request", "nothing to change: give a name, tags, ssh_keys or a description", status=422)
    events: list[ProjectEvents] = []
    if command.name is not None:
        events.append(ProjectRenamed(**stamp(command), name=command.name))
    if command.tags is not None:
        events.append(ProjectTagged(**stamp(command), tags=command.tags))
    if command.ssh_keys is not None:
        events.append(ProjectSshKeysChanged(**stamp(command), ssh_keys=command.ssh_keys))
    if command.description is not None:
        events.append(ProjectDescribed(**stamp(command), description=command.description))
    return events


def in_use(project: Project, command: DeleteProject | FinishProjectDeletion) -> Rejected | None:
    """Why a project cannot be deleted, when somebody uses it."""
    if command.images:
        some = ", ".join(sorted(command.images)[:10])
        return Rejected("project_not_empty", f"images belong to it: {some}; delete them first")
    if command.vms:
        return Rejected("project_not_empty", f"project {project.id} still has {command.vms} VMs; delete them first")
    return None


def finish(project: Project | None, command: FinishProjectDeletion) -> list[ProjectEvents]:
    if project is None or project.closing is None:
        return []
    used = in_use(project, command)
    if used is not None:
        return [ProjectDeletionGivenUp(at=command.at, code=used.code, detail=used.detail)]
    asked = project.closing
    return [ProjectDeleted(at=command.at, operation=asked.operation, fingerprint=asked.fingerprint)]


def evolve(project: Project | None, event: Event) -> Project | None:
    """The state after an event. A deleted id may be created anew."""
    match event:
        case DeletionBegun() | DeletionGivenUp():
            return closing(project, event)
        case ProjectCreated():
            made = {field: getattr(event, field) for field in ("tags", "ssh_keys", "description", "created_by")}
            return created(project, event, event.project, event.name, **made)
        case ProjectRenamed() if project is not None:
            return changed(project, event, name=event.name)
        case ProjectTagged() if project is not None:
            return changed(project, event, tags=event.tags)
        case ProjectSshKeysChanged() if project is not None:
            return changed(project, event, ssh_keys=event.ssh_keys)
        case ProjectDescribed() if project is not None:
            return changed(project, event, description=event.description)
        case ProjectDeleted() if project is not None:
            return changed(project, event, deleted=True, closing=None)
        case _:
            return project
