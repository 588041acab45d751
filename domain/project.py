"""Projects own VMs; tags group projects and VMs. Both are created, renamed and deleted; projects are tagged, and carry
the SSH keys of those who may log in to all of their VMs.

Two small aggregates of the same shape: an id that people choose and that never changes, and a name that may.
"""

from typing import Annotated, ClassVar, assert_never

from pydantic import AfterValidator, AwareDatetime, Field

from domain.base import Command, Event, Known, Message, Rejected, Slug, Tags, Title, Uuid, same_request, unique

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


class ChangeProject(ProjectCommand):
    """Rename it, tag it, give it other SSH keys: what is None stays."""

    VERB = "change"
    name: Title | None = None
    tags: Tags | None = None
    ssh_keys: SshKeys | None = None


class DeleteProject(ProjectCommand):
    VERB = "delete"
    vms: int = Field(default=0, description="VMs that still exist in it")


ProjectCommands = CreateProject | ChangeProject | DeleteProject


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


TagCommands = CreateTag | RenameTag | DeleteTag


class Done(Event):
    at: AwareDatetime
    operation: str
    fingerprint: str


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


ProjectEvents = ProjectCreated | ProjectRenamed | ProjectTagged | ProjectSshKeysChanged | ProjectDeleted


class TagCreated(Done):
    TOPIC = "nebula.tag.TagCreated"
    tag: str
    name: str


class TagRenamed(Done):
    TOPIC = "nebula.tag.TagRenamed"
    name: str


class TagDeleted(Done):
    TOPIC = "nebula.tag.TagDeleted"


TagEvents = TagCreated | TagRenamed | TagDeleted


class Named(Message):
    """A project or a tag as its events tell it. Tags carry neither tags nor keys."""

    id: str
    name: str
    tags: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    deleted: bool = False
    created_at: AwareDatetime
    updated_at: AwareDatetime
    operations: dict[str, Known] = Field(default_factory=dict)


Project = Named
Tag = Named


def decide_project(project: Project | None, command: ProjectCommands) -> list[ProjectEvents]:
    """What follows from a command on a project."""
    if project and same_request(project.operations.get(command.operation), command.VERB, command.fingerprint):
        return []
    stamp = {"at": command.at, "operation": command.operation, "fingerprint": command.fingerprint}
    if isinstance(command, CreateProject):
        if command.project == SYSTEM:
            raise Rejected("reserved_id", f"the id {SYSTEM} is reserved", status=422, field="id")
        if project is not None and not project.deleted:
            raise Rejected("project_exists", f"there is a project {project.id} already", field="id")
        return [
            ProjectCreated(
                **stamp, project=command.project, name=command.name, tags=command.tags, ssh_keys=command.ssh_keys
            )
        ]
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
            if command.vms:
                raise Rejected(
                    "project_not_empty", f"project {project.id} still has {command.vms} VMs; delete them first"
                )
            return [ProjectDeleted(**stamp)]
        case _:
            assert_never(command)


def decide_tag(tag: Tag | None, command: TagCommands) -> list[TagEvents]:
    """What follows from a command on a tag."""
    if tag and same_request(tag.operations.get(command.operation), command.VERB, command.fingerprint):
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
            if command.vms or command.projects:
                raise Rejected(
                    "tag_in_use",
                    f"{command.vms} VMs and {command.projects} projects still carry tag {tag.id}; untag them first",
                )
            return [TagDeleted(**stamp)]
        case _:
            assert_never(command)


def evolve(state: Named | None, event: Event) -> Named | None:
    """The state after an event, of a project or of a tag. A deleted id may be created anew."""
    if not isinstance(event, Done):
        return state
    past = state.operations if state else {}
    verb = VERBS.get(type(event), "")
    known = {**past, event.operation: Known(verb=verb, fingerprint=event.fingerprint)}
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
            update["deleted"] = True
    return state.model_copy(update=update)


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
