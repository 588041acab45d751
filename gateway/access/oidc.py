"""Bearer tokens of an OIDC issuer: JWTs that are judged here by the issuer's public keys, without asking it."""

import hashlib
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from domain.access import Access, Grant
from gateway.access import claims as judged
from gateway.access.claims import BadClaim
from gateway.access.code_login import CodeLogin
from gateway.access.identity import Identity, unauthorized
from gateway.access.key_set import ALGORITHMS, IssuerAway, KeySet, PublicKey
from gateway.access.oidc_login import BadIssuer, OidcLogin
from gateway.http.problems import Problem
from runtime.settings import GatewaySettings
from runtime.trust import trusted

#: Seconds by which the issuer's clock may differ from this one.
LEEWAY = 30.0
#: Maximum number of characters of a token.
MOST = 8192
#: Number of verified tokens that are remembered: a signature is checked once for as long as the keys stay the same.
REMEMBERED = 4096
#: Types of tokens, in lower case. A token may have none.
TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})


#: The refusal of a key that is none of the issuer's.
STRANGE_KEY = "its key is not one of the issuer's"
#: The latest end of a token, in seconds since 1970 (the year 2200).
LATEST = 7_258_118_400.0

Bindings = Callable[[str], frozenset[Grant]]
"""What a principal is granted by the log. Raises Problem (503) if that is not known now."""


@dataclass(frozen=True, slots=True)
class OidcIdentity(Identity):
    """The owner of a token. `claimed`: what its claims grant, without bindings in projects. `key`: what signed it."""

    claimed: frozenset[Grant] = frozenset()
    key: PublicKey | None = None


def no_bindings(principal: str) -> frozenset[Grant]:
    """What a principal is granted if only claims grant something."""
    return frozenset()


@dataclass
class Issuer:
    """The issuer that this gateway trusts. `client_id`: of the program that people log in with, if there is one."""

    url: str
    audience: str
    client_id: str | None
    scopes: tuple[str, ...]
    claim: str
    roles_claim: str | None
    roles: dict[str, frozenset[Grant]]
    key_set: KeySet
    bindings: Bindings = no_bindings
    #: sign-ins in a browser; None without a client
    codes: CodeLogin | None = field(init=False, default=None)
    _known: OrderedDict[str, OidcIdentity] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        if (login := self.login()) is not None:
            self.codes = CodeLogin(login, self.key_set.trust, self.identify)

    async def identify(self, token: str) -> Identity | None:
        """The owner of a token; None if it is no JWT. Raises Problem: 401, and 503 while no keys are known."""
        if token.count(".") != 2:
            return None
        if len(token) > MOST:
            raise refused(f"it is longer than {MOST} characters")
        digest = hashlib.sha256(token.encode()).hexdigest()
        found = self._known.pop(digest, None)
        if found is None or not self._held(found):
            found = self._identity(*await self._verified(token), digest)
        self._known[digest] = found
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return self._with_bindings(found)

    def still(self, identity: Identity) -> Identity | None:
        """What an earlier identity is now: its bindings may have changed, and its key may have been withdrawn."""
        if not isinstance(identity, OidcIdentity):
            return None
        if not self._held(identity):
            raise refused(STRANGE_KEY)
        return self._with_bindings(identity)

    def login(self) -> OidcLogin | None:
        """What a client needs to log in; None if no client is set up for that."""
        if self.client_id is None:
            return None
        return OidcLogin(issuer=self.url, client_id=self.client_id, audience=self.audience, scopes=self.scopes)

    def _held(self, identity: OidcIdentity) -> bool:
        """Whether the issuer still has the key that signed a token. Raises Problem (503)."""
        try:
            return identity.key is not None and self.key_set.holds(identity.key)
        except IssuerAway as error:
            raise self._away(error) from error

    def _with_bindings(self, identity: OidcIdentity) -> Identity:
        access = identity.access
        grants = identity.claimed | self.bindings(access.principal)
        return identity if grants == access.grants else replace(identity, access=replace(access, grants=grants))

    def _away(self, error: IssuerAway) -> Problem:
        return Problem(503, "issuer_away", f"the keys of {self.url} are not known now: {error}")

    async def _verified(self, token: str) -> tuple[dict[str, Any], PublicKey]:
        """The claims of a valid token, and the key that signed it. Raises Problem."""
        try:
            header = jwt.get_unverified_header(token)
            stated = jwt.decode(token, options={"verify_signature": False})
        except (PyJWTError, ValueError, RecursionError) as error:
            raise refused("it is no valid JWT") from error
        self._judge_form(header, stated)
        try:
            keys = await self.key_set.keys(header.get("kid"), header["alg"])
        except IssuerAway as error:
            raise self._away(error) from error
        if not keys:
            raise refused(STRANGE_KEY)
        failure: Exception | None = None
        for key in keys:
            try:
                found = jwt.decode(
                    token,
                    key.key,
                    algorithms=[key.algorithm],
                    audience=self.audience,
                    issuer=self.url,
                    leeway=LEEWAY,
                    options={"require": ["iss", "aud", "exp", "iat"]},
                )
                return found, key
            except (PyJWTError, ValueError, TypeError, OverflowError) as error:
                failure = error
        raise refused(_why(failure)) from failure

    def _judge_form(self, header: dict[str, Any], stated: dict[str, Any]) -> None:
        """Refuse what is wrong whatever the key: before a key is looked for. Raises Problem."""
        if header.get("alg") not in ALGORITHMS:
            raise refused(f"its algorithm is not one of {', '.join(ALGORITHMS)}")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower() not in TYPES or "events" in stated:
            raise refused("it is neither an access token nor an ID token")
        if "crit" in header or "cnf" in stated:
            raise refused("it needs a proof that this platform does not know")
        if not isinstance(header.get("kid", ""), str):
            raise refused("its key id is no text")
        if stated.get("iss") != self.url:
            raise refused("it is of another issuer")

    def _identity(self, found: dict[str, Any], key: PublicKey, digest: str) -> OidcIdentity:
        """The owner of a valid token. Raises Problem (401) if it was made for others."""
        audiences = found["aud"] if isinstance(found["aud"], list) else [found["aud"]]
        ours = {self.audience, self.client_id or self.audience}
        party = found.get("azp")
        if (len(audiences) > 1 and party not in ours) or (
            self.audience == self.client_id and party not in (None, self.client_id)
        ):
            raise refused("it was made for another client (azp)")
        try:
            principal = judged.principal(found, self.claim)
        except BadClaim as error:
            raise refused(str(error)) from error
        grants = judged.grants(found, self.roles, self.roles_claim) if self.roles_claim else frozenset()
        ends = datetime.fromtimestamp(min(float(found["exp"]) + LEEWAY, LATEST), UTC)
        return OidcIdentity(Access(principal, grants), digest[:12], ends, grants, key)


def opened(settings: GatewaySettings) -> Issuer | None:
    """The issuer of the settings; None if there is none. Raises BadIssuer."""
    if settings.oidc_issuer is None:
        return None
    if settings.oidc_audience is None:
        raise BadIssuer("NEBULA_OIDC_AUDIENCE is missing: the audience of tokens for this platform")
    try:
        roles = judged.mapped(settings.oidc_roles) if settings.oidc_roles else {}
    except ValueError as error:
        raise BadIssuer(f"NEBULA_OIDC_ROLES: {error}") from error
    try:
        file = settings.oidc_ca_file
        trust = trusted() if file is None else ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as error:
        raise BadIssuer(f"NEBULA_OIDC_CA_FILE: {settings.oidc_ca_file} cannot be used: {error}") from error
    return Issuer(
        settings.oidc_issuer,
        settings.oidc_audience,
        settings.oidc_client_id,
        tuple(scope.strip() for scope in settings.oidc_scopes.split(",") if scope.strip()),
        settings.oidc_claim,
        settings.oidc_roles.claim if settings.oidc_roles else None,
        roles,
        KeySet(settings.oidc_issuer, trust),
    )


def refused(why: str) -> Problem:
    """The refusal of a token."""
    return unauthorized(f"this token is refused: {why}")


def _why(error: Exception | None) -> str:
    match error:
        case ExpiredSignatureError():
            return "it has expired"
        case ImmatureSignatureError():
            return "it is not valid yet"
        case InvalidSignatureError():
            return "its signature is wrong"
        case MissingRequiredClaimError():
            return f"it has no {error.claim}"
        case jwt.InvalidAudienceError():
            return "it is for another audience"
        case _:
            return "its claims are wrong"
