"""Projects own VMs; tags group projects and VMs. Both are created, renamed and deleted; projects are tagged, and carry
the SSH keys of those who may log in to all of their VMs.

Two small aggregates of the same shape: an id that people choose and that never changes, and a name that may.

    CreateX ─► there ──DeleteX, unused as far as is known──► closing ──unused at that position──► deleted ──CreateX─►
                 ▲                                              │
                 └──────────used at that position───given up────┘

A deletion has two steps, because others refer to projects and tags: `…DeletionBegun` stands at a position of the log,
and who uses the aggregate at that position decides. What comes later finds it closing, and is refused.
"""

from typing import Annotated, ClassVar, assert_never

from pydantic import AfterValidator, AwareDatetime, Field

from domain.base import (
    Closing,
    Command,
    Event,
    Message,
    Rejected,
    Slug,
    Tags,
    Title,
    Uuid,
    being_deleted,
    unique,
)
from domain.known import NONE, Known, Operations, same_request

SYSTEM = "system"
"""The project token of what no project owns: projects may not take this id."""

SshKeys = Annotated[tuple[str, ...], Field(max_length=64), AfterValidator(unique)]
"""OpenSSH public keys, one line each."""


class Asked(Command):
    VERB: ClassVar[str]
    operation: Uuid
    fingerprint: str


class ProjectCommand(Asked):
    project: Slug


class CreateProject(ProjectCommand):
    VERB = "create"
    name: Title
    tags: Tags = ()
    ssh_keys: SshKeys = ()
    vms: int = Field(default=0, description="VMs that still exist of an earlier project with this id")


class ChangeProject(ProjectCommand):
    """Rename it, tag it, give it other SSH keys: what is None stays."""

    VERB = "change"
    name: Title | None = None
    tags: Tags | None = None
    ssh_keys: SshKeys | None = None


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


class TagCommand(Asked):
    tag: Slug


class CreateTag(TagCommand):
    VERB = "create"
    name: Title


class RenameTag(TagCommand):
    VERB = "rename"
    name: Title


class DeleteTag(TagCommand):
    VERB = "delete"
    vms: int = Field(default=0, description="VMs that carry it")
    projects: int = Field(default=0, description="projects that carry it")


class FinishTagDeletion(Command):
    """Who carried the tag at the position where its deletion began."""

    tag: Slug
    vms: int = 0
    projects: int = 0


TagCommands = CreateTag | RenameTag | DeleteTag | FinishTagDeletion


class Done(Event):
    at: AwareDatetime
    operation: str
    fingerprint: str


class DeletionBegun(Event):
    """Nothing may refer to it from here on. `requested`: the operation that the deletion becomes, if it is finished."""

    at: AwareDatetime
    requested: str
    fingerprint: str


class DeletionGivenUp(Event):
    """It was in use where its deletion began: it may be used again, and nothing was deleted."""

    at: AwareDatetime
    code: str
    detail: str


class ProjectCreated(Done):
    TOPIC = "nebula.project.ProjectCreated"
    project: str
    name: str
    tags: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()


class ProjectRenamed(Done):
    TOPIC = "nebula.project.ProjectRenamed"
    name: str


class ProjectTagged(Done):
    TOPIC = "nebula.project.ProjectTagged"
    tags: tuple[str, ...]


class ProjectSshKeysChanged(Done):
    """All guests of the project are told `ssh_keys` together with their own, whenever they look at their seed."""

    TOPIC = "nebula.project.ProjectSshKeysChanged"
    ssh_keys: tuple[str, ...]


class ProjectDeleted(Done):
    TOPIC = "nebula.project.ProjectDeleted"


class ProjectDeletionBegun(DeletionBegun):
    TOPIC = "nebula.project.ProjectDeletionBegun"


class ProjectDeletionGivenUp(DeletionGivenUp):
    TOPIC = "nebula.project.ProjectDeletionGivenUp"


ProjectEvents = (
    ProjectCreated
    | ProjectRenamed
    | ProjectTagged
    | ProjectSshKeysChanged
    | ProjectDeletionBegun
    | ProjectDeletionGivenUp
    | ProjectDeleted
)


class TagCreated(Done):
    TOPIC = "nebula.tag.TagCreated"
    tag: str
    name: str


class TagRenamed(Done):
    TOPIC = "nebula.tag.TagRenamed"
    name: str


class TagDeleted(Done):
    TOPIC = "nebula.tag.TagDeleted"


class TagDeletionBegun(DeletionBegun):
    TOPIC = "nebula.tag.TagDeletionBegun"


class TagDeletionGivenUp(DeletionGivenUp):
    TOPIC = "nebula.tag.TagDeletionGivenUp"


TagEvents = TagCreated | TagRenamed | TagDeletionBegun | TagDeletionGivenUp | TagDeleted


class Named(Message):
    """A project or a tag as its events tell it. Tags carry neither tags nor keys."""

    id: str
    name: str
    tags: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    deleted: bool = False
    closing: Closing | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    operations: Operations = NONE


Project = Named
Tag = Named


def usable_project(project: Project | None, id_: str) -> Project:
    """The project, when something new may be made in it. Raises Rejected."""
    if project is None or project.deleted:
        raise Rejected("project_not_found", f"there is no project {id_}", status=404, field="project")
    if project.closing is not None:
        raise being_deleted("project", id_, field="project")
    return project


def usable_tag(tag: Tag | None, id_: str) -> Tag:
    """The tag, when something new may carry it. Raises Rejected."""
    if tag is None or tag.deleted:
        raise Rejected("tag_not_found", f"there is no tag {id_}; create it first", status=422, field="tags")
    if tag.closing is not None:
        raise being_deleted("tag", id_, field="tags")
    return tag


def asked_before(state: Named | None, command: Asked) -> bool:
    """Whether this very request was accepted already, or is a deletion that has begun. Raises Rejected.

    While a deletion is not decided, nothing else is taken.
    """
    if state is None:
        return False
    if same_request(state.operations.get(command.operation), command.VERB, command.fingerprint):
        return True
    if state.closing is None:
        return False
    if state.closing.operation != command.operation:
        raise being_deleted("project" if isinstance(command, ProjectCommand) else "tag", state.id)
    return same_request(Known(verb="delete", fingerprint=state.closing.fingerprint), command.VERB, command.fingerprint)


def decide_project(project: Project | None, command: ProjectCommands) -> list[ProjectEvents]:
    """What follows from a command on a project."""
    if isinstance(command, FinishProjectDeletion):
        return finish_project(project, command)
    if asked_before(project, command):
        return []
    stamp = {"at": command.at, "operation": command.operation, "fingerprint": command.fingerprint}
    if isinstance(command, CreateProject):
        return create_project(project, command)
    if project is None:
        raise Rejected("project_not_found", f"there is no project {command.project}", status=404, field="project")
    if project.deleted:
        raise Rejected("project_deleted", f"project {project.id} was deleted", status=410)
    match command:
        case ChangeProject():
            if command.name is None and command.tags is None and command.ssh_keys is None:
                raise Rejected("invalid_request", "nothing to change: give a name, tags or ssh_keys", status=422)
            events: list[ProjectEvents] = []
            if command.name is not None:
                events.append(ProjectRenamed(**stamp, name=command.name))
            if command.tags is not None:
                events.append(ProjectTagged(**stamp, tags=command.tags))
            if command.ssh_keys is not None:
                events.append(ProjectSshKeysChanged(**stamp, ssh_keys=command.ssh_keys))
            return events
        case DeleteProject():
            used = project_in_use(project, command)
            if used is not None:
                raise used
            return [ProjectDeletionBegun(at=command.at, requested=command.operation, fingerprint=command.fingerprint)]
        case _:
            assert_never(command)


def create_project(project: Project | None, command: CreateProject) -> list[ProjectEvents]:
    if command.project == SYSTEM:
        raise Rejected("reserved_id", f"the id {SYSTEM} is reserved", status=422, field="id")
    if project is not None and not project.deleted:
        raise Rejected("project_exists", f"there is a project {project.id} already", field="id")
    if command.vms:
        detail = f"{command.vms} VMs of a deleted project {command.project} still exist; delete them first"
        raise Rejected("project_not_empty", detail, field="id")
    return [
        ProjectCreated(
            at=command.at,
            operation=command.operation,
            fingerprint=command.fingerprint,
            project=command.project,
            name=command.name,
            tags=command.tags,
            ssh_keys=command.ssh_keys,
        )
    ]


def project_in_use(project: Project, command: DeleteProject | FinishProjectDeletion) -> Rejected | None:
    """Why a project cannot be deleted, when somebody uses it."""
    if command.images:
        some = ", ".join(sorted(command.images)[:10])
        return Rejected("project_not_empty", f"images belong to it: {some}; delete them first")
    if command.vms:
        return Rejected("project_not_empty", f"project {project.id} still has {command.vms} VMs; delete them first")
    return None


def finish_project(project: Project | None, command: FinishProjectDeletion) -> list[ProjectEvents]:
    if project is None or project.closing is None:
        return []
    used, closing = project_in_use(project, command), project.closing
    if used is not None:
        return [ProjectDeletionGivenUp(at=command.at, code=used.code, detail=used.detail)]
    return [ProjectDeleted(at=command.at, operation=closing.operation, fingerprint=closing.fingerprint)]


def decide_tag(tag: Tag | None, command: TagCommands) -> list[TagEvents]:
    """What follows from a command on a tag."""
    if isinstance(command, FinishTagDeletion):
        return finish_tag(tag, command)
    if asked_before(tag, command):
        return []
    stamp = {"at": command.at, "operation": command.operation, "fingerprint": command.fingerprint}
    if isinstance(command, CreateTag):
        if tag is not None and not tag.deleted:
            raise Rejected("tag_exists", f"there is a tag {tag.id} already", field="id")
        return [TagCreated(**stamp, tag=command.tag, name=command.name)]
    if tag is None:
        raise Rejected("tag_not_found", f"there is no tag {command.tag}", status=404, field="tag")
    if tag.deleted:
        raise Rejected("tag_deleted", f"tag {tag.id} was deleted", status=410)
    match command:
        case RenameTag():
            return [TagRenamed(**stamp, name=command.name)]
        case DeleteTag():
            used = tag_in_use(tag, command)
            if used is not None:
                raise used
            return [TagDeletionBegun(at=command.at, requested=command.operation, fingerprint=command.fingerprint)]
        case _:
            assert_never(command)


def tag_in_use(tag: Tag, command: DeleteTag | FinishTagDeletion) -> Rejected | None:
    """Why a tag cannot be deleted, when somebody carries it."""
    if not command.vms and not command.projects:
        return None
    detail = f"{command.vms} VMs and {command.projects} projects still carry tag {tag.id}; untag them first"
    return Rejected("tag_in_use", detail)


def finish_tag(tag: Tag | None, command: FinishTagDeletion) -> list[TagEvents]:
    if tag is None or tag.closing is None:
        return []
    used, closing = tag_in_use(tag, command), tag.closing
    if used is not None:
        return [TagDeletionGivenUp(at=command.at, code=used.code, detail=used.detail)]
    return [TagDeleted(at=command.at, operation=closing.operation, fingerprint=closing.fingerprint)]


def evolve(state: Named | None, event: Event) -> Named | None:
    """The state after an event, of a project or of a tag. A deleted id may be created anew."""
    if isinstance(event, DeletionBegun | DeletionGivenUp):
        return state and state.model_copy(update={"closing": closing_of(event)})
    if not isinstance(event, Done):
        return state
    past = state.operations if state else NONE
    verb = VERBS.get(type(event), "")
    known = past.insert(event.operation, Known(verb, event.fingerprint))
    match event:
        case ProjectCreated():
            made = {"id": event.project, "name": event.name, "tags": event.tags, "ssh_keys": event.ssh_keys}
            return Named(**made, created_at=event.at, updated_at=event.at, operations=known)
        case TagCreated():
            made = {"id": event.tag, "name": event.name}
            return Named(**made, created_at=event.at, updated_at=event.at, operations=known)
    if state is None:
        return None
    update: dict[str, object] = {"updated_at": event.at, "operations": known}
    match event:
        case ProjectRenamed() | TagRenamed():
            update["name"] = event.name
        case ProjectTagged():
            update["tags"] = event.tags
        case ProjectSshKeysChanged():
            update["ssh_keys"] = event.ssh_keys
        case ProjectDeleted() | TagDeleted():
            update |= {"deleted": True, "closing": None}
    return state.model_copy(update=update)


def closing_of(event: DeletionBegun | DeletionGivenUp) -> Closing | None:
    if isinstance(event, DeletionGivenUp):
        return None
    return Closing(operation=event.requested, fingerprint=event.fingerprint, since=event.at)


VERBS: dict[type[Event], str] = {
    ProjectCreated: CreateProject.VERB,
    ProjectRenamed: ChangeProject.VERB,
    ProjectTagged: ChangeProject.VERB,
    ProjectSshKeysChanged: ChangeProject.VERB,
    ProjectDeleted: DeleteProject.VERB,
    TagCreated: CreateTag.VERB,
    TagRenamed: RenameTag.VERB,
    TagDeleted: DeleteTag.VERB,
}
