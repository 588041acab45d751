"""Who may do what: principals, roles, permissions.

A permission is a pair of words, `<kind>.<what>`. It stands in the row of each call: in a verb's value, or in a read's
row. A role is a set of permissions. A grant gives a principal a role, in one project or (`project` is None) everywhere.
`Access` is all that is known of one caller; gateway and handlers both ask it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, NewType

Permission = NewType("Permission", str)

OPEN = Permission("open")
"""For calls that need no credential."""
SELF = Permission("self.read")
"""For calls about the caller: every authenticated caller has it."""
SELF_EDIT = Permission("self.edit")

VM_READ = Permission("vm.read")
VM_CREATE = Permission("vm.create")
VM_OPERATE = Permission("vm.operate")
VM_EDIT = Permission("vm.edit")
VM_DELETE = Permission("vm.delete")
VM_CONSOLE = Permission("vm.console")
"""For consoles and for what was written to them: both may show secrets."""

PROJECT_READ = Permission("project.read")
PROJECT_EDIT = Permission("project.edit")
PROJECT_MEMBERS = Permission("project.members")
PROJECT_MANAGE = Permission("project.manage")
"""To create and delete projects."""

OPERATION_READ = Permission("operation.read")
EVENT_READ = Permission("event.read")

IMAGE_READ = Permission("image.read")
IMAGE_MANAGE = Permission("image.manage")
FLAVOR_READ = Permission("flavor.read")
FLAVOR_MANAGE = Permission("flavor.manage")
TAG_READ = Permission("tag.read")
TAG_MANAGE = Permission("tag.manage")

NODE_READ = Permission("node.read")
NODE_MANAGE = Permission("node.manage")
USER_READ = Permission("user.read")
USER_MANAGE = Permission("user.manage")
TOKEN_READ = Permission("token.read")
TOKEN_MANAGE = Permission("token.manage")
"""For tokens of other principals; everybody manages their own with `self.edit`."""
STATUS_READ = Permission("status.read")
PARKED_READ = Permission("parked.read")
PARKED_MANAGE = Permission("parked.manage")

PLATFORM = Permission("platform")
"""For commands of the platform itself. No role has it: only principals `system:`, `node:` and `guest:` do."""

GIVES_ACCESS = frozenset({SELF_EDIT, PROJECT_MEMBERS, USER_MANAGE, TOKEN_MANAGE, NODE_MANAGE})
"""With these one gives access to others, or makes a new credential, which outlasts the own permission."""


class Role(StrEnum):
    """A set of permissions. Viewer, member and admin are roles in a project; operator and auditor in the cloud."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"
    AUDITOR = "auditor"
    OPERATOR = "operator"


PROJECT_ROLES = (Role.VIEWER, Role.MEMBER, Role.ADMIN)
CLOUD_ROLES = (Role.AUDITOR, Role.OPERATOR)

_CALLER = {SELF, SELF_EDIT}
_PUBLIC = {IMAGE_READ, FLAVOR_READ, TAG_READ}
_VIEWER = {*_CALLER, *_PUBLIC, VM_READ, PROJECT_READ, OPERATION_READ, EVENT_READ}
_MEMBER = {*_VIEWER, VM_CREATE, VM_OPERATE, VM_EDIT, VM_DELETE, VM_CONSOLE}
_ADMIN = {*_MEMBER, PROJECT_EDIT, PROJECT_MEMBERS, IMAGE_MANAGE, FLAVOR_MANAGE}
_AUDITOR = {*_VIEWER, NODE_READ, USER_READ, TOKEN_READ, STATUS_READ, PARKED_READ}
_OPERATOR = {
    *_ADMIN,
    *_AUDITOR,
    PROJECT_MANAGE,
    TAG_MANAGE,
    NODE_MANAGE,
    USER_MANAGE,
    TOKEN_MANAGE,
    PARKED_MANAGE,
}

ROLES: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset(_VIEWER),
    Role.MEMBER: frozenset(_MEMBER),
    Role.ADMIN: frozenset(_ADMIN),
    Role.AUDITOR: frozenset(_AUDITOR),
    Role.OPERATOR: frozenset(_OPERATOR),
}
"""The permissions of each role."""

KNOWN = frozenset({OPEN, PLATFORM, *ROLES[Role.OPERATOR]})
"""All permissions. A row with another one does not start."""

IN_PROJECT = frozenset(_ADMIN) - _CALLER
"""The permissions that a role in one project can give, for what belongs to the project."""
ANYWHERE = frozenset({*_CALLER, *_PUBLIC})
"""The permissions that a role anywhere gives everywhere, for what belongs to no project."""

NODE, GUEST, SYSTEM = "node", "guest", "system"
RESERVED = (NODE, GUEST, SYSTEM)
"""The sorts of principals that are parts of the platform. No person, program or token can have such a name."""


def reads_only(permission: Permission) -> bool:
    """Whether a call with this permission changes nothing."""
    return permission.endswith(".read") or permission == OPEN


class Grant(NamedTuple):
    """A role in one project, or everywhere (`project` is None)."""

    role: Role
    project: str | None = None

    def gives(self, permission: Permission, project: str | None) -> bool:
        """Whether it gives a permission for something of a project, or (`project` is None) of no project."""
        if permission not in ROLES[self.role]:
            return False
        if project is None:
            return self.project is None or permission in ANYWHERE
        return self.project in (None, project)


@dataclass(frozen=True, slots=True)
class Limits:
    """To what a caller's token is limited: a project, a role, a time. None: it is not."""

    project: str | None = None
    role: Role | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """A verified principal, such as `user:alice`, and what it may do.

    `grants` are those that the token's limits leave. `read_only`: its token allows reads only.
    """

    principal: str
    grants: frozenset[Grant] = field(default_factory=frozenset)
    read_only: bool = False
    limits: Limits = Limits()

    def may(self, permission: Permission, project: str | None = None) -> bool:
        """Whether the principal has a permission for something of a project, or (`project` is None) of no project."""
        if permission == OPEN:
            return True
        if self.read_only and not reads_only(permission):
            return False
        return permission in _CALLER or any(grant.gives(permission, project) for grant in self.grants)

    def has(self, grant: Grant) -> bool:
        """Whether it has all permissions that a grant gives: it may give that grant to others."""
        return all(self.may(permission, grant.project) for permission in ROLES[grant.role])

    def projects(self, permission: Permission) -> frozenset[str] | None:
        """The projects in which the principal has a permission; None stands for all projects."""
        giving = [grant for grant in self.grants if permission in ROLES[grant.role]]
        if any(grant.project is None for grant in giving):
            return None
        return frozenset(grant.project for grant in giving if grant.project is not None)


def least_role(permission: Permission, among: Iterable[Role] = Role) -> Role | None:
    """The role with the fewest permissions that has this one, for texts of refusals; None if no role has it."""
    having = [role for role in among if permission in ROLES[role]]
    return min(having, key=lambda role: len(ROLES[role]), default=None)


def lacking(access: Access, permission: Permission, project: str | None = None, *, anywhere: bool = False) -> str:
    """Why a caller may not do something, with the least role that may: the detail of the refusal `forbidden`.

    `project`: the project of the resource; None for a resource of no project. `anywhere`: a role in any project is
    enough.
    """
    if access.read_only and not reads_only(permission):
        return "this token is for reading only; use another one"
    in_project = permission in IN_PROJECT and (project is not None or anywhere or permission in ANYWHERE)
    role = least_role(permission, PROJECT_ROLES if in_project else CLOUD_ROLES)
    if role is None:
        return "only the platform itself may do this"
    if not in_project:
        return f"this needs the role {role}"
    return f"this needs the role {role} in {f'project {project}' if project is not None else 'a project'}"


def narrowed(grants: Iterable[Grant], *, project: str | None = None, role: Role | None = None) -> frozenset[Grant]:
    """The grants of a token that is limited to a project, to a role, or both.

    Each grant becomes the greatest role that has no permission which the grant or the limit lacks.
    """
    found = set()
    for grant in grants:
        if project is not None and grant.project not in (None, project):
            continue
        where = project if project is not None else grant.project
        allowed = ROLES[grant.role] & (ROLES[role] if role is not None else ROLES[grant.role])
        if where is not None:
            allowed &= ROLES[Role.ADMIN]
        fitting = [one for one, permissions in ROLES.items() if permissions <= allowed]
        if where is not None:
            fitting = [one for one in fitting if one in PROJECT_ROLES]
        if fitting:
            found.add(Grant(max(fitting, key=lambda one: len(ROLES[one])), where))
    return frozenset(found)
