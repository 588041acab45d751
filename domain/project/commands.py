"""The commands on projects."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from domain.access import Role
from domain.base import Remark, Slug, Tags, Title, unique
from domain.named import OperationCommand
from domain.principal import Principal
from domain.references import LOOKED_UP, NAMES_PRINCIPAL, FinishDeletion, Names, Users

SshKeys = Annotated[tuple[str, ...], Field(max_length=64), AfterValidator(unique)]
"""OpenSSH public keys, one line each."""

ProjectRole = Annotated[Literal[Role.VIEWER, Role.MEMBER, Role.ADMIN], Field(description="a role in the project")]


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
