"""The events of projects."""

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from domain.access import Role
from domain.named import DeletionBegun, DeletionGivenUp, OperationDone
from domain.project.commands import BindRole, ChangeProject, CreateProject, DeleteProject, UnbindRole


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
