"""Projects own VMs. A project has members with roles, tags, and the SSH keys of people who may log in to all its VMs.

`named.py` shows the life of a project.
"""

from typing import Annotated, Literal, assert_never

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from pydantic.json_schema import SkipJsonSchema

from domain.access import PROJECT_EDIT, PROJECT_MANAGE, PROJECT_MEMBERS, PROJECT_READ, Access, Grant, Permission, Role
from domain.base import LENIENT, Category, Event, Rejected, Remark, Slug, Tags, Title, being_deleted, replace, unique
from domain.kind import SYSTEM, Id, Kind, Scope
from domain.named import (
    DeletionBegun,
    DeletionGivenUp,
    Named,
    OperationCommand,
    OperationDone,
    closing_after,
    deletion_fields,
    is_repeat,
    operation_fields,
    operations_after,
)
from domain.principal import Principal, cannot_give, is_bindable
from domain.references import (
    LOOKED_UP,
    NAMES_PRINCIPAL,
    NONE,
    FinishDeletion,
    Names,
    Reference,
    Users,
    account_of,
    tags as carried,
)
from domain.verb import ON_ACCEPTANCE, Effect, Verb

SshKeys = Annotated[tuple[str, ...], Field(max_length=64), AfterValidator(unique)]
"""OpenSSH public keys, one line each."""

ProjectRole = Annotated[Literal[Role.VIEWER, Role.MEMBER, Role.ADMIN], Field(description="a role in the project")]
MOST_MEMBERS = 1000


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Project(Named):
    """The state of a project. `members`: the roles of principals in it, in alphabetical order of the principals."""

    members: dict[str, Role] = Field(default_factory=dict)


class ProjectCommand(OperationCommand):
    project: Slug


class CreateProject(ProjectCommand):
    VERB = "create"
    name: Title
    tags: Annotated[Tags, Names("tag")] = ()
    ssh_keys: SshKeys = ()
    description: Remark | None = None
    created_by: Annotated[str | None, NAMES_PRINCIPAL] = None
    users: Annotated[
        Users, LOOKED_UP, Field(description="resources that still exist of an earlier project with this id")
    ] = Users()


class ChangeProject(ProjectCommand):
    """Fields that are None stay unchanged; tags and SSH keys are replaced as a whole."""

    VERB = "change"
    name: Title | None = None
    tags: Annotated[Tags | None, Names("tag")] = None
    ssh_keys: SshKeys | None = None
    description: Remark | None = None


class BindRole(ProjectCommand):
    """Give a principal a role in the project. It replaces the earlier one."""

    VERB = "bind"
    principal: Annotated[Principal, NAMES_PRINCIPAL]
    role: ProjectRole


class UnbindRole(ProjectCommand):
    VERB = "unbind"
    principal: Principal


class DeleteProject(ProjectCommand):
    VERB = "delete"
    users: Annotated[Users, LOOKED_UP] = Users()


ProjectCommands = CreateProject | ChangeProject | BindRole | UnbindRole | DeleteProject | FinishDeletion


class ProjectCreated(OperationDone):
    TOPIC = "nebula.project.ProjectCreated"
    VERB = CreateProject.VERB
    SIGNED = True
    project: str
    name: str
    tags: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    description: str | None = None
    created_by: SkipJsonSchema[str | None] = Field(default=None, exclude=True)


class ProjectRenamed(OperationDone):
    TOPIC = "nebula.project.ProjectRenamed"
    VERB = ChangeProject.VERB
    name: str


class ProjectTagged(OperationDone):
    TOPIC = "nebula.project.ProjectTagged"
    VERB = ChangeProject.VERB
    tags: tuple[str, ...]


class ProjectSshKeysChanged(OperationDone):
    """From now on the seeds of all guests of the project contain `ssh_keys`, together with their own keys."""

    TOPIC = "nebula.project.ProjectSshKeysChanged"
    VERB = ChangeProject.VERB
    ssh_keys: tuple[str, ...]


class ProjectDescribed(OperationDone):
    """It has a new description. An empty one removes the earlier one."""

    TOPIC = "nebula.project.ProjectDescribed"
    VERB = ChangeProject.VERB
    description: str


class ProjectRoleBound(OperationDone):
    """A principal has a role in the project, and no other one."""

    TOPIC = "nebula.project.ProjectRoleBound"
    VERB = BindRole.VERB
    principal: str
    role: Role


class ProjectRoleUnbound(OperationDone):
    """A principal has no role in the project any more."""

    TOPIC = "nebula.project.ProjectRoleUnbound"
    VERB = UnbindRole.VERB
    principal: str


class ProjectDeleted(OperationDone):
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
    | ProjectRoleBound
    | ProjectRoleUnbound
    | ProjectDeletionBegun
    | ProjectDeletionGivenUp
    | ProjectDeleted
)


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


def refers(project: Project) -> frozenset[Reference]:
    if project.deleted:
        return NONE
    accounts = (account_of(principal) for principal in project.members)
    return carried(project.tags) | {account for account in accounts if account is not None}


def verb(
    command: type[ProjectCommand],
    summary: str,
    effect: Effect,
    *accepted_by: type[OperationDone],
    permission: Permission = PROJECT_MANAGE,
) -> Verb[ProjectCommand]:
    return Verb(
        name=command.VERB,
        command=command,
        summary=summary,
        effect=effect,
        permission=permission,
        accepted_by=accepted_by,
        fulfilled_by=ON_ACCEPTANCE,
        two_steps=effect is Effect.DELETES,
        admit=admit,
    )


PROJECT = Kind[Project, ProjectCommands](
    name="project",
    plural="projects",
    title="project",
    scope=Scope.ITSELF,
    id=Id.SLUG,
    readable_by=PROJECT_READ,
    state=Project,
    verbs=(
        verb(CreateProject, "Create a project", Effect.CREATES, ProjectCreated),
        verb(
            ChangeProject,
            "Change a project",
            Effect.CHANGES,
            ProjectRenamed,
            ProjectTagged,
            ProjectSshKeysChanged,
            ProjectDescribed,
            permission=PROJECT_EDIT,
        ),
        verb(
            BindRole,
            "Give a principal a role in a project",
            Effect.ACTS,
            ProjectRoleBound,
            permission=PROJECT_MEMBERS,
        ),
        verb(
            UnbindRole,
            "Take the role in a project from a principal",
            Effect.ACTS,
            ProjectRoleUnbound,
            permission=PROJECT_MEMBERS,
        ),
        verb(DeleteProject, "Delete a project", Effect.DELETES, ProjectDeleted),
    ),
    events=(ProjectDeletionBegun, ProjectDeletionGivenUp),
    decide=decide,
    evolve=evolve,
    deleted=lambda project: project.deleted,
    refers=refers,
    usable=usable,
)
