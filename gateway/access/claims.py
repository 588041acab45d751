"""What the claims of an OIDC token mean: the principal, and the roles that it has by the claim map."""

from collections.abc import Mapping
from typing import Any

from domain.access import Grant
from domain.principal import is_bindable
from gateway.access.tokens_file import grant
from runtime.oidc_roles import OidcRoles

#: The maximum number of values of one claim that are looked at.
MOST_VALUES = 1000


Claims = Mapping[str, Any]


class BadClaim(Exception):
    """The claims of a token name no principal. The text says why."""


def principal(claims: Claims, name: str) -> str:
    """The principal `oidc:<value>`. Raises BadClaim.

    An e-mail address counts only if the issuer has verified it: else anybody could choose somebody else's.
    """
    value = _found(claims, name)
    if not isinstance(value, str):
        raise BadClaim(f"the claim {name} of this token is missing, or is no text")
    found = f"oidc:{value}"
    if not is_bindable(found):
        raise BadClaim(
            f"the claim {name} of this token cannot be a principal: it has to be 1 to 250 visible ASCII characters"
        )
    if name == "email" and claims.get("email_verified") is not True:
        raise BadClaim("the issuer has not verified the e-mail address in this token")
    return found


def grants(claims: Claims, roles: Mapping[str, frozenset[Grant]], name: str) -> frozenset[Grant]:
    """What the values of a claim give: one text, or a list. Everything else in it gives nothing."""
    value = _found(claims, name)
    values = value[:MOST_VALUES] if isinstance(value, list) else [value]
    empty: frozenset[Grant] = frozenset()
    return empty.union(*(roles.get(each, empty) for each in values if isinstance(each, str)))


def mapped(given: OidcRoles) -> dict[str, frozenset[Grant]]:
    """The grants for each value of the claim. Raises ValueError for something that is no role."""
    return {value: frozenset(map(grant, roles)) for value, roles in given.map.items()}


def _found(claims: Claims, name: str) -> object:
    """A claim by its name, or else by a path of names with dots, such as `realm_access.roles`."""
    if name in claims:
        return claims[name]
    value: object = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
