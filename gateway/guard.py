"""Who may make a call: judged from the caller's roles, before the call's function runs.

- What a caller may not see does not exist for it: 404, in the words that it gets for what does not exist. The roles
  alone decide this, so nothing is looked up, and waits and times tell nothing. Only an image or a flavor may belong to
  a project: then its row decides, by the same queries as for one that does not exist.
- What a caller sees and may not do is 403, with the least role that may.
- Lists, operations and events of several projects are filtered by their queries.
"""

from collections.abc import Mapping

from starlette.requests import Request

from domain.access import EVENT_READ, OPERATION_READ, PARKED_READ, Access, Permission
from domain.kind import SYSTEM, nobody
from domain.kinds import KINDS
from eventstore.log.envelope import Ref
from eventstore.parking.parking import NotParked
from gateway.access.forbidden import forbidden, in_project
from gateway.commands.actions import Action
from gateway.http.parameters import not_found, path_id
from gateway.reads import reads
from gateway.reads.read import Read
from gateway.state import Gateway, caller
from projections.books import TABLES
from runtime import subjects

#: The permission to see what a path names, by the parameter in the path.
READABLE: Mapping[str, Permission] = {
    **{kind.name: kind.readable_by for kind in KINDS.values()},
    subjects.OPERATION: OPERATION_READ,
    "event": EVENT_READ,
    "source": PARKED_READ,
}


class Guard:
    """The check of one call. Raises KeyError for a path that names something without a permission in READABLE."""

    def __init__(self, call: Read | Action) -> None:
        self._permission = call.permission
        names = [part[1:-1] for part in call.path.split("/") if part.startswith("{")]
        self._in_project = "project" in names
        self._named = names[0] if names else None
        self._readable_by = READABLE[names[0]] if names else None
        #: whether it is a command on a resource of the cloud that may belong to a project
        self._owned = isinstance(call, Action) and bool(names) and KINDS[names[0]].owner is not nobody

    async def __call__(self, gateway: Gateway, request: Request) -> None:
        """Raises Problem: 404 for what the caller may not see, 403 for what it sees and may not do."""
        access = caller(request).identity.access
        if self._in_project:
            in_project(access, self._permission, request.path_params["project"])
        elif not access.may(self._permission):
            await self._in_the_cloud(gateway, request, access)

    async def _in_the_cloud(self, gateway: Gateway, request: Request, access: Access) -> None:
        """Judge a call that the caller's roles do not allow everywhere."""
        if self._named is not None and self._readable_by is not None and not sees(access, self._readable_by):
            raise unseen(request, self._named)
        if self._owned and self._named is not None:
            owner = await owner_of(gateway, request, self._named)
            if not access.may(self._permission, owner):
                raise forbidden(access, self._permission, owner)
        elif not somewhere(access, self._permission):
            raise forbidden(access, self._permission, anywhere=True)


def sees(access: Access, permission: Permission) -> bool:
    """Whether a caller may read anything with this permission."""
    return access.may(permission) or somewhere(access, permission)


def somewhere(access: Access, permission: Permission) -> bool:
    """Whether a caller has a permission in some project: then rows, or the command's body, decide."""
    return any(access.may(permission, project) for project in access.projects(permission) or ())


def unseen(request: Request, name: str) -> Exception:
    """The refusal for what a path names, as for something that does not exist."""
    if name == "source":
        return NotParked("{source}/{key}".format_map(request.path_params))
    return not_found(name, path_id(request, name))


async def owner_of(gateway: Gateway, request: Request, kind: str) -> str | None:
    """The project that a resource of the cloud belongs to. Raises Problem (404)."""
    found = await reads.known(gateway, request, TABLES[kind], Ref(SYSTEM, kind, path_id(request, kind)))
    return KINDS[kind].owner(found.state)
