"""Tickets for feeds in browsers: an `EventSource` sends no `Authorization`, and a token must not be in a URL.

A ticket opens one feed once, for the caller who requested it, within a minute. Only the gateway that made it knows it,
until that gateway stops. Only its hash is stored.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from gateway.access.auth import Authentication
from gateway.access.identity import Identity, unauthorized

#: Seconds for which a ticket is valid.
SECONDS = 60
#: The maximum number of tickets of one caller, and of all; the oldest are removed.
MOST_OF_ONE, MOST = 100, 10_000


@dataclass(frozen=True, slots=True)
class _Ticket:
    identity: Identity
    path: str
    ends: float


@dataclass
class Tickets:
    """The unused tickets, by their hashes."""

    _open: OrderedDict[str, _Ticket] = field(default_factory=OrderedDict)

    def issue(self, identity: Identity, path: str) -> str:
        """Make a ticket for one path."""
        self._expire()
        mine = [name for name, one in self._open.items() if one.identity.actor == identity.actor]
        for name in mine[: len(mine) - MOST_OF_ONE + 1]:
            del self._open[name]
        while len(self._open) >= MOST:
            self._open.popitem(last=False)
        ticket = secrets.token_urlsafe(32)
        self._open[hashed(ticket)] = _Ticket(identity, path.lower(), time.monotonic() + SECONDS)
        return ticket

    def redeem(self, ticket: str, path: str, access: Authentication) -> Identity:
        """The owner of a ticket, as it is now. The ticket cannot be used again. Raises Problem: 401, 503."""
        self._expire()
        found = self._open.get(hashed(ticket))
        if found is None or found.path != path.lower():
            raise unauthorized("this ticket is unknown: it is used, expired or for another path; request a new one")
        identity = access.still(found.identity)
        del self._open[hashed(ticket)]
        return identity

    def _expire(self) -> None:
        now = time.monotonic()
        while self._open and next(iter(self._open.values())).ends <= now:
            self._open.popitem(last=False)


def hashed(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()


def offered(method: str, path: str, query: bytes) -> str | None:
    """The ticket in the query of a feed; None if there is none."""
    if method != "GET" or not path.endswith("/feed") or b"ticket=" not in query:
        return None
    try:
        return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=16)).get("ticket")
    except ValueError:  # too many parameters: refused later, with a message
        return None
