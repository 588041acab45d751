"""Authentication by bearer tokens from a file. Without a file, every caller on loopback is `local`."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from domain.access import CLOUD_ROLES, Access, Grant, Role
from domain.patterns import SHA256
from gateway.http.parameters import ACTOR
from gateway.http.problems import Problem
from runtime import logs

log = logs.get(__name__)

LOCAL = "local"
#: Paths that need no token.
OPEN = frozenset({"/healthz", "/v1/openapi.json"})
#: Seconds between looks at the file.
LOOK_AGAIN = 1.0

EVERYTHING = frozenset({Grant(Role.OPERATOR)})
"""What callers may do who have no token, or a token of the file without roles."""

_LINE = re.compile(rf"(\S{{1,64}})\s+({SHA256})(?:\s+(\S{{1,1024}}))?")
_GRANT = re.compile(r"([a-z]{1,16})(?:@([a-z0-9-]{1,63}))?")


class BadTokens(Exception):
    """The tokens file cannot be used. The text says which line, and what it should be."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller, what it may do, and its credential (the first digits of the token's hash; None without tokens)."""

    access: Access
    credential: str | None = None

    @property
    def actor(self) -> str:
        return self.access.principal


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
class Tokens:
    """The tokens of a file, read again whenever it changes. Without a file, every caller is `local`."""

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

    def identify(self, authorization: str | None) -> Identity:
        """The caller. Raises Problem (401)."""
        if self.path is None:
            return Identity(Access(LOCAL, EVERYTHING))
        self._refresh()
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthorized("send `Authorization: Bearer <token>`")
        digest = hashlib.sha256(token.strip().encode()).hexdigest()
        found: Identity | None = None
        for known, identity in self._known.items():
            if hmac.compare_digest(known, digest):
                found = identity
        if found is None:
            raise unauthorized("this token is unknown: check it, or ask the operator for a new one")
        return found

    def valid(self, identity: Identity) -> bool:
        """Whether an identity from an earlier call is still valid."""
        self._refresh()
        return self.path is None or identity in self._known.values()


def offered(subprotocols: Iterable[str]) -> str | None:
    """The `Authorization` in a WebSocket's subprotocols (`bearer.<token in base64url>`); None if there is none."""
    for each in subprotocols:
        scheme, dot, token = each.partition(".")
        if scheme == "bearer" and dot:
            try:
                raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
                return f"Bearer {raw.decode('ascii')}"
            except ValueError as error:
                raise unauthorized("the token after `bearer.` has to be in base64url") from error
    return None


def anybody() -> Identity:
    """The caller of a path that needs no token. It may do nothing else."""
    return Identity(Access(LOCAL))


def unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
