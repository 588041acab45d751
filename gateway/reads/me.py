"""The caller itself: its name, and what it may do."""

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from gateway.reads.reads import answer
from gateway.state import Gateway, caller
from projections import times


class GrantView(TypedDict):
    """A role, in one project or (`project` is null) everywhere."""

    role: str
    project: str | None


class MeView(TypedDict):
    """The caller. `read_only`: its token allows reads only. `credential`: the id of its token.

    `expires_at`: when the token expires; null if it does not, or if there is none.
    """

    principal: str
    roles: list[GrantView]
    read_only: bool
    credential: str | None
    expires_at: str | None


async def me(_: Gateway, request: Request) -> Response:
    """Who the caller is, and its roles."""
    identity = caller(request).identity
    access = identity.access
    grants = sorted(access.grants, key=lambda grant: (grant.project or "", grant.role))
    roles: list[GrantView] = [{"role": grant.role.value, "project": grant.project} for grant in grants]
    view: MeView = {
        "principal": access.principal,
        "roles": roles,
        "read_only": access.read_only,
        "credential": identity.credential,
        "expires_at": times.maybe(identity.ends),
    }
    return answer(view, {"Cache-Control": "no-store"})
