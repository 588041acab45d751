"""Tickets: how a browser follows a feed. Its `EventSource` sends no `Authorization`, and a token has no place in a URL.

A ticket opens one feed once, for the caller who asked for it, within a minute. Only the gateway that made it knows it,
and forgets it when it ends. Only its hash is kept.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from gateway.access.auth import Identity, Tokens, unauthorized

#: Seconds that a ticket can be used for.
SECONDS = 60
#: The most tickets of one caller, and of all: the oldest make room.
MOST_OF_ONE, MOST = 100, 10_000


@dataclass(frozen=True, slots=True)
class _Ticket:
    identity: Identity
    path: str
    ends: float


@dataclass
class Tickets:
    """The tickets that were not used yet, by the hash of each."""

    _open: OrderedDict[str, _Ticket] = field(default_factory=OrderedDict)

    def issue(self, identity: Identity, path: str) -> str:
        """A new ticket for one path."""
        self._expire()
        mine = [name for name, one in self._open.items() if one.identity.actor == identity.actor]
        for name in mine[: len(mine) - MOST_OF_ONE + 1]:
            del self._open[name]
        while len(self._open) >= MOST:
            self._open.popitem(last=False)
        ticket = secrets.token_urlsafe(32)
        self._open[hashed(ticket)] = _Ticket(identity, path.lower(), time.monotonic() + SECONDS)
        return ticket

    def redeem(self, ticket: str, path: str, tokens: Tokens) -> Identity:
        """Whose ticket it is, which is used up by this. Raises Problem (401)."""
        self._expire()
        found = self._open.get(hashed(ticket))
        if found is None or found.path != path.lower() or not tokens.valid(found.identity):
            raise unauthorized("this ticket is not known here: used, expired or for another path; ask for a new one")
        del self._open[hashed(ticket)]
        return found.identity

    def _expire(self) -> None:
        now = time.monotonic()
        while self._open and next(iter(self._open.values())).ends <= now:
            self._open.popitem(last=False)


def hashed(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()


def offered(method: str, path: str, query: bytes) -> str | None:
    """The ticket that a call of a feed offers, if it does."""
    if method != "GET" or not path.endswith("/feed") or b"ticket=" not in query:
        return None
    try:
        return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=16)).get("ticket")
    except ValueError:  # far more parameters than a feed has: refused later, with a message
        return None
