"""The names of principals: `user:alice`, `service:ci`, `oidc:<subject>`.

Users and service accounts are resources. An `oidc:` principal is known to its issuer only. Other sorts are parts of the
platform (`RESERVED` in `access.py`).
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from domain.access import RESERVED, Role
from domain.base import Category, Rejected
from domain.patterns import SLUG
from domain.references import ACCOUNTS, Reference, account_of

_OIDC = "oidc:[!-~]{1,250}"
_ACCOUNT = rf"(user|service):{SLUG}"
#: What `principal` accepts, as a regular expression of JSON Schema.
PATTERN = rf"^({_ACCOUNT}|{_OIDC})$"
ACCOUNT_PATTERN = rf"^{_ACCOUNT}$"


def sort_of(principal: str) -> str | None:
    """The sort of a principal, such as `user`; None for a static one, which has none."""
    sort, colon, _ = principal.partition(":")
    return sort if colon else None


def is_bindable(principal: str) -> bool:
    """Whether it can have roles: a user, a service account, or a principal of an issuer."""
    return re.fullmatch(PATTERN[1:-1], principal) is not None


def principal(given: str) -> str:
    """The principal that a caller names. Raises ValueError."""
    if (sort := sort_of(given)) in RESERVED:
        raise ValueError(f"{sort}: is reserved for parts of the platform; name a user: or a service:")
    if not is_bindable(given):
        raise ValueError("has to be user:<id>, service:<id> or oidc:<subject>")
    return given


def account(given: str) -> str:
    """The user or service account that a caller names. Raises ValueError."""
    if sort_of(principal(given)) not in ACCOUNTS:
        raise ValueError("has to be user:<id> or service:<id>: only these can have tokens")
    return given


Principal = Annotated[
    str, StringConstraints(max_length=255), AfterValidator(principal), Field(json_schema_extra={"pattern": PATTERN})
]
"""A principal that can have roles."""

AccountPrincipal = Annotated[
    str,
    StringConstraints(max_length=255),
    AfterValidator(account),
    Field(json_schema_extra={"pattern": ACCOUNT_PATTERN}),
]
"""A principal that can have tokens."""


def account_named(given: str, field: str) -> Reference:
    """The user or service account with this name. Raises Rejected for another principal."""
    found = account_of(given)
    if found is None:
        detail = f"{given} is neither a user nor a service account: only these can have tokens"
        raise Rejected("not_an_account", detail, Category.INVALID, field=field)
    return found


def cannot_give(role: Role) -> Rejected:
    """The refusal to give a role that the caller does not have."""
    detail = f"you cannot give the role {role}: you do not have its permissions yourself"
    return Rejected("forbidden", detail, Category.FORBIDDEN, field="role")
