"""Projects as a kind: one value of `Kind`."""

from domain.access import PROJECT_EDIT, PROJECT_MANAGE, PROJECT_MEMBERS, PROJECT_READ, Permission
from domain.kind import Id, Kind, Scope
from domain.named import OperationDone
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
    ProjectRenamed,
    ProjectRoleBound,
    ProjectRoleUnbound,
    ProjectSshKeysChanged,
    ProjectTagged,
)
from domain.project.rules import admit, decide, usable
from domain.project.state import Project, evolve
from domain.references import NONE, Reference, account_of, tags as carried
from domain.verb import ON_ACCEPTANCE, Effect, Verb


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
