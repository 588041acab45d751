"""What a principal may do, from what is known of it. Gateway and handlers both use these functions, and these texts."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache

from domain.access import Access, Grant, Permission, Role, lacking, narrowed
from domain.account import Account
from domain.base import Category, Rejected
from domain.token import Token


def access_of(
    principal: str, account: Account | None, members: Mapping[str, Role], token: Token | None, now: datetime
) -> Access | None:
    """What a user or a service account may do with a token; None if the token is worthless.

    `members`: its roles by project. `token`: the state of the token that the caller showed; None if there is no such
    token, which is as good as none.
    """
    if account is None or account.deleted or account.disabled or token is None or token.revoked:
        return None
    if token.principal != principal or token.incarnation != account.incarnation or token.expires_at <= now:
        return None
    grants = {*map(Grant, account.roles), *(Grant(role, project) for project, role in members.items())}
    limits = token.limits
    if limits.project is not None or limits.role is not None:
        grants = {*narrowed(grants, project=limits.project, role=limits.role)}
    return Access(principal, frozenset(grants), token.read_only, limits)


def vouched_access(
    principal: str, grants: Iterable[Grant], members: Mapping[str, Role], *, read_only: bool = False
) -> Access:
    """What a principal may do that is no resource: with the grants of its credential, and its roles by project."""
    bound = (Grant(role, project) for project, role in members.items())
    return _access(principal, frozenset([*grants, *bound]), read_only)


#: One principal gives many commands in a row: its access is the same object.
_access = lru_cache(maxsize=256)(Access)


def worthless() -> Rejected:
    """The refusal of a caller whose token is revoked, expired or unknown, or who is disabled."""
    detail = "this token is not valid any more: it is revoked or expired, or its principal is disabled or deleted"
    return Rejected("unauthorized", detail, Category.UNAUTHORIZED)


def forbidden(access: Access, permission: Permission, project: str | None = None) -> Rejected:
    """The refusal of what the caller may see and not do. It names the role that is needed."""
    return Rejected("forbidden", lacking(access, permission, project), Category.FORBIDDEN)
