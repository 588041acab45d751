"""The caller itself: its name, and what it may do."""

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.access import IN_PROJECT, KNOWN, OPEN, PLATFORM, Access
from gateway.reads.reads import answer
from gateway.state import Gateway, caller
from projections import times


class GrantView(TypedDict):
    """A role, in one project or (`project` is null) everywhere."""

    role: str
    project: str | None


class PermissionsView(TypedDict):
    """What the caller may do with what belongs to a project, or (`project` is null) to no project."""

    project: str | None
    permissions: list[str]


class MeView(TypedDict):
    """The caller. `read_only`: its token allows reads only. `credential`: the id of its token.

    `permissions`: what its roles give, within the limits of its token. First those for the whole cloud (`project` is
    null), then those of each project in which it has a role. A call is allowed if one of the two has its permission.
    `expires_at`: when the token expires; null if it does not, or if there is none.
    """

    principal: str
    roles: list[GrantView]
    permissions: list[PermissionsView]
    read_only: bool
    credential: str | None
    expires_at: str | None


def permissions(access: Access) -> list[PermissionsView]:
    """All permissions of a caller, by project; those for the whole cloud first."""
    projects = sorted({grant.project for grant in access.grants if grant.project is not None})
    views: list[PermissionsView] = [
        {"project": project, "permissions": [one for one in sorted(among) if access.may(one, project)]}
        for project, among in ((None, KNOWN - {OPEN, PLATFORM}), *((project, IN_PROJECT) for project in projects))
    ]
    return views


async def me(_: Gateway, request: Request) -> Response:
    """Who the caller is, and its roles."""
    identity = caller(request).identity
    access = identity.access
    grants = sorted(access.grants, key=lambda grant: (grant.project or "", grant.role))
    roles: list[GrantView] = [{"role": grant.role.value, "project": grant.project} for grant in grants]
    view: MeView = {
        "principal": access.principal,
        "roles": roles,
        "permissions": permissions(access),
        "read_only": access.read_only,
        "credential": identity.credential,
        "expires_at": times.maybe(identity.ends),
    }
    return answer(view, {"Cache-Control": "no-store"})
