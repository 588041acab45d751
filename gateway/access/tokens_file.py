"""Tokens of operators from a file: they work without the log, so they are the way in when all else fails.

Each line has a name, the SHA-256 of a token in hex, and optionally roles; without them it is an operator's.
"""

import hashlib
import hmac
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from domain.access import CLOUD_ROLES, Access, Grant, Role
from domain.patterns import SHA256
from gateway.access.identity import EVERYTHING, Identity, unknown
from gateway.http.parameters import ACTOR
from runtime import logs

log = logs.get(__name__)

#: Seconds between looks at the file.
LOOK_AGAIN = 1.0

_LINE = re.compile(rf"(\S{{1,64}})\s+({SHA256})(?:\s+(\S{{1,1024}}))?")
_GRANT = re.compile(r"([a-z]{1,16})(?:@([a-z0-9-]{1,63}))?")


class BadTokens(Exception):
    """The tokens file cannot be used. The text says which line, and what it should be."""


def parse(text: str) -> dict[str, Identity]:
    """Identities by the SHA-256 of their token. Raises BadTokens."""
    found: dict[str, Identity] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.split("#", 1)[0].strip()
        if not entry:
            continue
        match = _LINE.fullmatch(entry)
        if match is None:
            raise BadTokens(f"line {number}: has to be a name, the SHA-256 of a token in hex, and optionally roles")
        given, digest, roles = match.groups()
        try:
            name = ACTOR.validate_python(given)
        except ValidationError as error:
            raise BadTokens(f"line {number}: the name {given!a} has to be printable characters") from error
        if ":" in name:
            raise BadTokens(f"line {number}: the name {given!a} must not contain ':', as principals of the log do")
        try:
            grants = EVERYTHING if roles is None else frozenset(map(grant, roles.split(",")))
        except ValueError as error:
            raise BadTokens(f"line {number}: {error}") from error
        found[digest] = Identity(Access(name, grants), digest[:12])
    return found


def grant(text: str) -> Grant:
    """A role, in one project if `@` and the project follow. Raises ValueError."""
    found = _GRANT.fullmatch(text)
    if found is None or found[1] not in set(Role):
        raise ValueError(f"{text!a} has to be a role ({', '.join(Role)}), in a project if @ and its id follow")
    role, project = Role(found[1]), found[2]
    if project is not None and role in CLOUD_ROLES:
        raise ValueError(f"{role} is no role in a project")
    return Grant(role, project)


@dataclass
class TokensFile:
    """The tokens of a file, read again whenever it changes. Without a file it knows no token."""

    path: Path | None
    _known: dict[str, Identity] = field(default_factory=dict)
    _stamp: tuple[int, int] = (0, 0)
    _looked: float = 0.0

    def load(self) -> None:
        """Read the file. Raises BadTokens."""
        if self.path is None:
            return
        try:
            stat = self.path.stat()
            self._known = parse(self.path.read_text())
            self._stamp = (stat.st_mtime_ns, stat.st_size)
        except (OSError, UnicodeDecodeError) as error:
            raise BadTokens(f"{self.path} cannot be read: {error}") from error

    async def identify(self, token: str) -> Identity | None:
        """The owner of a token; None if the file does not have it."""
        self._refresh()
        digest = hashlib.sha256(token.encode()).hexdigest()
        found: Identity | None = None
        for known, identity in self._known.items():
            if hmac.compare_digest(known, digest):
                found = identity
        return found

    def still(self, identity: Identity) -> Identity | None:
        """The identity, while the file has it. Raises Problem (401) if it had it before."""
        self._refresh()
        if ":" in identity.actor:
            return None
        if identity not in self._known.values():
            raise unknown()
        return identity

    def _refresh(self) -> None:
        now = time.monotonic()
        if self.path is None or now - self._looked < LOOK_AGAIN:
            return
        self._looked = now
        try:
            stat = self.path.stat()
            if (stat.st_mtime_ns, stat.st_size) != self._stamp:
                self.load()
                log.info("tokens read again", path=str(self.path), tokens=len(self._known))
        except (OSError, BadTokens) as error:
            log.error("tokens file unusable; the tokens read before stay valid", error=str(error))
