"""Tokens of the log: of users and service accounts, checked against the directory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from domain.access import Access
from domain.principals import access_of, worthless
from domain.token import Token
from gateway.access.directory import Directory
from gateway.access.identity import Identity, unauthorized, unknown
from gateway.access.pepper import Pepper
from gateway.access.uses import Uses
from runtime.token_text import split

#: Stands for the digest of a token that does not exist, so that its check takes as long.
NO_DIGEST = "0" * 64
#: Maximum number of tokens whose access is kept.
MOST = 20_000


@dataclass(frozen=True, slots=True)
class LogIdentity(Identity):
    """The owner of a token of the log. `credential`: the id of the token."""


@dataclass
class LogTokens:
    """A source of identities."""

    directory: Directory
    pepper: Pepper
    uses: Uses
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _version: int = -1
    _known: dict[str, Access] = field(default_factory=dict)

    async def identify(self, token: str) -> Identity | None:
        """The owner of a token; None if it does not have the form of one.

        Raises Problem: 401, with one text for an unknown id and a wrong secret; 503 if it cannot be known.
        """
        parts = split(token)
        if parts is None:
            return None
        self.directory.judge()
        id_, secret = parts
        stored = self.directory.token(id_)
        fits = self.pepper.fits(id_, secret, stored.digest if stored is not None else NO_DIGEST)
        if stored is None or not fits:
            raise unknown()
        identity = self._of(stored)
        self.uses.note(id_)
        return identity

    def still(self, identity: Identity) -> Identity | None:
        """The same token as it is now. Raises Problem: 401, 503."""
        if not isinstance(identity, LogIdentity):
            return None
        self.directory.judge()
        stored = self.directory.token(identity.credential or "")
        if stored is None:
            raise unknown()
        return self._of(stored)

    def _of(self, token: Token) -> Identity:
        """The identity of a token whose secret was right. Raises Problem (401)."""
        now = self.clock()
        if self._version != self.directory.version or len(self._known) >= MOST:
            self._version = self.directory.version
            self._known.clear()
        access = self._known.get(token.id)
        if access is None:
            principal = token.principal
            found = access_of(
                principal, self.directory.account(principal), self.directory.members(principal), token, now
            )
            if found is None:
                raise unauthorized(worthless().detail)
            access = self._known[token.id] = found
        if token.expires_at <= now:
            raise unauthorized(worthless().detail)
        return LogIdentity(access, token.id, token.expires_at)
