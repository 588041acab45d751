"""Who may give which command: checked again here, whatever the sender of a command has checked.

What users and service accounts may do follows from the log alone: their account, their token, and their role in the
command's project. The sender vouches for the grants of other principals. Of the parts of the platform, `system:` may do
what has the permission PLATFORM, `guest:<vm>` may do so for its own VM, and `node:` gives no commands.

The check comes first, for a repeat of an accepted command too: its reply shows the resource, which a caller who has
lost the role may not see any more.

What the log has taken away counts as soon as this process has received it, and at the latest FRESH seconds after it was
stored (docs/decisions.md, 44).
"""

import asyncio
import contextlib
import math
from collections.abc import Mapping
from typing import Any

from domain.access import (
    GIVES_ACCESS,
    GUEST,
    OPEN,
    PLATFORM,
    PROJECT_READ,
    RESERVED,
    SELF,
    SELF_EDIT,
    SYSTEM,
    Access,
    Permission,
    Role,
)
from domain.account import Account
from domain.base import Category, Rejected
from domain.contract import Caller
from domain.kind import Kind, Scope, nobody
from domain.principal import sort_of
from domain.principals import access_of, forbidden, vouched_access, worthless
from domain.references import ACCOUNTS, account_of
from domain.token import Token
from domain.verb import Effect
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore, Unavailable
from handlers.apply import now
from handlers.commands.log_end import LogEnd
from handlers.commands.lookups import Args
from handlers.commands.routes import Route
from handlers.world.references import refers_to
from handlers.world.world import World
from runtime import subjects

#: Maximum number of seconds to wait until the world knows what the log has.
PATIENCE = 5.0
#: Seconds for which what is known of the log counts as current.
FRESH = 0.25
#: Seconds after which the log is asked again while commands come, so that none of them has to wait for that.
RENEWED = FRESH / 2
OIDC = "oidc"


class Permissions:
    """Checks the permissions of callers."""

    def __init__(self, store: EventStore, world: World) -> None:
        self._world = world
        self._end = LogEnd(store)
        self._confirmed = -math.inf
        """The time of the event loop up to which all that was stored in the log is received."""
        self._renewal: asyncio.Task[None] | None = None

    async def check(self, route: Route, ref: Ref, args: Args, caller: Caller) -> Access:
        """What the caller may do in the command's project, if it may give the command.

        A revocation that was in the log FRESH seconds before this is called counts; if the command gives access to
        somebody, one that was in the log when this is called. So does a permission that was given until then. Raises
        Rejected (UNAUTHORIZED, FORBIDDEN, or NOT_FOUND for what the caller may not see), Unavailable.
        """
        needed = route.verb.permission
        if needed == OPEN:
            return Access(caller.actor)
        sort = sort_of(caller.actor)
        if sort in RESERVED:
            access = Access(caller.actor)
            if needed != PLATFORM or not speaks_for(caller.actor, ref):
                raise forbidden(access, needed)
            return access
        if await self._is_current(sort, needed, self._relevant(ref, args, route, caller) if is_in_log(sort) else []):
            project = self._project(route, ref, args)
            with contextlib.suppress(Rejected):  # what the log has may be more
                access = self._access(caller, sort, project)
                if access.may(needed, project):
                    return access
        await self._learn(self._relevant(ref, args, route, caller))
        project = self._project(route, ref, args)
        access = self._access(caller, sort, project)
        if access.may(needed, project):
            return access
        raise self._refusal(access, route, ref, project)

    async def check_cloud(self, permission: Permission, caller: Caller) -> None:
        """Whether the caller may do something that belongs to no project. Raises as `check`."""
        sort = sort_of(caller.actor)
        if sort in RESERVED:
            raise forbidden(Access(caller.actor), permission)
        if is_in_log(sort):
            await self._learn(of_caller(caller))
        access = self._access(caller, sort, None)
        if not access.may(permission):
            raise forbidden(access, permission)

    def _access(self, caller: Caller, sort: str | None, project: str | None) -> Access:
        if sort is None:
            return vouched_access(caller.actor, caller.grants, {}, read_only=caller.read_only)
        members = self._members(caller.actor, project)
        if sort == OIDC:
            return vouched_access(caller.actor, caller.grants, members, read_only=caller.read_only)
        account = account_of(caller.actor)
        state: Account | None = self._world.get(refers_to(account)).state if account is not None else None
        token: Token | None = self._world.get(token_ref(caller.credential)).state if is_id(caller.credential) else None
        access = access_of(caller.actor, state, members, token, now())
        if access is None:
            raise worthless()
        return access

    def _members(self, principal: str, project: str | None) -> Mapping[str, Role]:
        """The role of a principal in the command's project; without one, its roles in all projects."""
        if project is not None:
            found = [self._world.project(project)]
        elif (account := account_of(principal)) is not None:
            found = [self._world.project(id_) for id_ in self._world.references.users(account).of("project")]
        else:
            found = [*self._world.projects()]
        return {one.id: one.members[principal] for one in found if one is not None and principal in one.members}

    def _project(self, route: Route, ref: Ref, args: Args) -> str | None:
        """The project in which the caller needs the permission; None if it is the whole cloud."""
        kind = route.kind
        if kind.scope is not Scope.CLOUD:
            return ref.project
        if kind.owner is nobody:
            return None
        if route.verb.effect is Effect.CREATES:
            given = args.get("project")
            return given if isinstance(given, str) and is_id(given) else None
        owner = kind.owner_of(subjects.SYSTEM, self._world.get(ref).state)
        return owner if owner != subjects.SYSTEM else None

    def _refusal(self, access: Access, route: Route, ref: Ref, project: str | None) -> Rejected:
        kind, needed = route.kind, route.verb.permission
        creates = route.verb.effect is Effect.CREATES
        if needed in (SELF, SELF_EDIT):
            return forbidden(access, needed)
        if creates:
            if project is None or kind.scope is Scope.ITSELF or access.may(PROJECT_READ, project):
                return forbidden(access, needed, project)
            category = Category.NOT_FOUND if kind.scope is Scope.PROJECT else Category.INVALID  # as for none
            return Rejected("project_not_found", f"there is no project {project}", category, field="project")
        exists = kind.scope is Scope.PROJECT or self._world.get(ref).state is not None
        if exists and access.may(kind.readable_by, project):
            return forbidden(access, needed, project)
        return hidden(kind, ref.id)

    async def _is_current(self, sort: str | None, needed: Permission, relevant: list[Ref]) -> bool:
        """Whether the world knows enough to grant a permission: what the log had FRESH seconds ago of these, and all
        that is received of them. Raises Unavailable.
        """
        if not is_in_log(sort):  # the sender vouches for the caller
            return True
        if needed in GIVES_ACCESS:
            return False
        age = asyncio.get_running_loop().time() - self._confirmed
        if age > FRESH:
            return False
        if age > RENEWED and (self._renewal is None or self._renewal.done()):
            self._renewal = asyncio.create_task(self._renew())
        await self._fold(relevant)
        return True

    async def _renew(self) -> None:
        with contextlib.suppress(Unavailable):  # a command that needs to know asks for itself
            await self._confirm()

    async def _learn(self, relevant: list[Ref]) -> None:
        """Wait until the world knows what the log has of these, and which roles principals have. Raises Unavailable."""
        await self._confirm()
        await self._fold(relevant)

    async def _confirm(self) -> None:
        """Wait until all is received that the log has. Raises Unavailable."""
        now = asyncio.get_running_loop().time()
        end = await self._end.position()
        if self._world.frontier.position < end:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._world.frontier.wait_for(end)
            except TimeoutError as error:
                raise self._lags(end) from error
        self._confirmed = max(self._confirmed, now)

    async def _fold(self, relevant: list[Ref]) -> None:
        """Wait until the world knows all that is received of these. Raises Unavailable."""
        position = self._behind(relevant)
        if not position:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await self._world.reached(position)
        except TimeoutError as error:
            raise self._lags(position) from error

    def _lags(self, end: int) -> Unavailable:
        read = self._world.frontier.position
        return Unavailable(f"this process has read the log up to {read}, and it ends at {end}")

    def _behind(self, relevant: list[Ref]) -> int:
        """The position that the world has to reach to know the newest events of these; 0 if it knows them."""
        newest, get = self._world.frontier.newest, self._world.get
        return max((newest(one) for one in relevant if newest(one) > get(one).tip.position), default=0)

    def _relevant(self, ref: Ref, args: Args, route: Route, caller: Caller) -> list[Ref]:
        """The caller, its token, the project, and the resource."""
        found = of_caller(caller)
        if route.kind.scope is Scope.CLOUD:
            found.append(ref)
        given = args.get("project")
        project = given if route.kind.scope is Scope.CLOUD else ref.project
        if isinstance(project, str) and is_id(project):
            found.append(Ref(project, "project", project))
        return found


def is_in_log(sort: str | None) -> bool:
    """Whether the log says what callers of a sort may do; else their sender vouches for it."""
    return sort in ACCOUNTS or sort == OIDC


def speaks_for(actor: str, ref: Ref) -> bool:
    """Whether a part of the platform may give commands for a resource."""
    sort, _, name = actor.partition(":")
    return sort == SYSTEM or (sort == GUEST and (ref.kind, ref.id) == ("vm", name))


def of_caller(caller: Caller) -> list[Ref]:
    """What the log has about a caller: its account and its token."""
    found = [refers_to(account)] if (account := account_of(caller.actor)) is not None else []
    if is_id(caller.credential):
        found.append(token_ref(caller.credential))
    return found


def is_id(given: object) -> bool:
    """Whether a text can be the id of a resource: one token of a subject."""
    return isinstance(given, str) and subjects.TOKEN.fullmatch(given) is not None


def token_ref(credential: str | None) -> Ref:
    return Ref(subjects.SYSTEM, "token", str(credential))


def hidden(kind: Kind[Any, Any], id_: str) -> Rejected:
    """The refusal of a command on a resource that the caller may not see: the same as if there were none."""
    detail = f"there is no {kind.title} {id_}{' in this project' if kind.scope is Scope.PROJECT else ''}"
    return Rejected(f"{kind.name}_not_found", detail, Category.NOT_FOUND, field=kind.name)
