"""Who a caller is, and the sources that know it: each source knows one sort of credential."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from domain.access import Access, Grant, Role
from gateway.http.problems import Problem


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller: what it may do, and the id of its credential (None without one).

    `ends`: when the credential expires; None if it does not.
    """

    access: Access
    credential: str | None = None
    ends: datetime | None = None

    @property
    def actor(self) -> str:
        """The principal, as events name it."""
        return self.access.principal


EVERYTHING = frozenset({Grant(Role.OPERATOR)})

NOBODY = Identity(Access("anonymous"))
"""The caller of a path that needs no credential."""
LOCAL = Identity(Access("local", EVERYTHING))
"""Every caller of a gateway without authentication, which serves loopback only."""


class Source(Protocol):
    """A source of identities.

    An identity is only ever given back to the source that made it: `Authentication` keeps that in mind.
    """

    async def identify(self, token: str) -> Identity | None:
        """The owner of a bearer token; None if the token is not of this source's form.

        Raises Problem: 401 for a token of this form that is not valid, 503 if that cannot be known now.
        """
        ...

    def still(self, identity: Identity) -> Identity | None:
        """What an identity of an earlier call is now; None if it is of another source.

        Raises Problem as `identify` does. It is called often, and must not wait for anything.
        """
        ...


def unauthorized(detail: str) -> Problem:
    """The refusal of a caller without a valid credential."""
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def unknown() -> Problem:
    """The refusal of a credential. It is the same for an unknown one and for one with a wrong secret."""
    return unauthorized("this token is unknown: check it, or ask the operator for a new one")
