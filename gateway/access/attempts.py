"""Sign-ins at an OIDC issuer that have begun in a browser. What they have to end with is sealed in a cookie of the
browser, so each gateway can end them, and only in the browser in which they began.
"""

import base64
import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from gateway.access.identity import Identity
from gateway.access.sealing import Ended, Seal, set_cookie, value_of

#: Seconds that somebody has at the issuer.
SECONDS = 600
#: Maximum number of characters of an address to come back to.
MOST_PAGE = 1500
#: Where a sign-in ends at the issuer, which has to know this address.
DONE = "/v1/login/done"
#: The first page of the console.
FIRST = "/console/"

#: Visible ASCII without `#`, `"`, and the backslash, which is a slash to browsers.
_PAGE = re.compile(r"/console/[!$-\[\]-~]*")


class SignInRefused(Exception):
    """A sign-in has failed. `code`: the page has words for it. The text is for the log of the gateway."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why


class IssuerSilent(Exception):
    """The issuer does not answer as it has to. The text says how."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The end of a sign-in, or of a renewal: a token, its owner, and what the issuer gives the next token for."""

    token: str
    identity: Identity
    refresh: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sign-in that has begun. `page`: where it leads. `redirect`: what the issuer was given. `ends`: since 1970."""

    state: str
    nonce: str
    verifier: str
    page: str
    redirect: str
    ends: int

    @property
    def challenge(self) -> str:
        """The digest of the verifier, as the issuer gets it first (RFC 7636, S256)."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")


@dataclass
class Attempts:
    """Makes and reads the cookies of sign-ins. `key`: 32 bytes that all gateways share; `tls`: as of `Sessions`."""

    key: bytes
    tls: bool = False
    now: Callable[[], float] = time.time
    _ended: Ended = field(default_factory=Ended)

    @property
    def name(self) -> str:
        return "__Host-nebula-login" if self.tls else "nebula-login"

    def begin(self, page: str, host: str) -> tuple[Attempt, str]:
        """A new sign-in, and the value of its `Set-Cookie`. `host`: as the browser calls this gateway."""
        redirect = f"{'https' if self.tls else 'http'}://{host}{DONE}"
        state, nonce, verifier = (os.urandom(32).hex() for _ in range(3))
        attempt = Attempt(state, nonce, verifier, page, redirect, int(self.now()) + SECONDS)
        return attempt, self._set_cookie(Seal(self.key, b"login").close(asdict(attempt)), SECONDS)

    def end(self, cookies: str | None, state: str) -> Attempt:
        """The sign-in of this browser, once. Raises SignInRefused."""
        try:
            sealed = value_of(cookies, self.name)
            attempt = Attempt(**Seal(self.key, b"login").open(sealed)) if sealed is not None else None
        except (ValueError, TypeError) as error:
            raise SignInRefused("lost", "its cookie cannot be read") from error
        if attempt is None:
            raise SignInRefused("lost", "this browser has begun none")
        if not hmac.compare_digest(attempt.state.encode(), state.encode()):
            raise SignInRefused("lost", "the state is that of another one")
        if attempt.ends <= self.now():
            raise SignInRefused("late", f"it took more than {SECONDS} s")
        if attempt.state in self._ended:
            raise SignInRefused("lost", "it has ended before")
        self._ended.add(attempt.state)
        return attempt

    def forgotten(self) -> str:
        """The value of a `Set-Cookie` that removes the cookie."""
        return self._set_cookie("", 0)

    def _set_cookie(self, value: str, seconds: int) -> str:
        # Lax: the browser comes back from another site, by a link.
        return set_cookie(self.name, value, seconds, site="Lax", tls=self.tls)


def is_page(address: str) -> bool:
    """Whether an address is one of the console's pages, and leads nowhere else in any browser."""
    path = address.split("?", 1)[0]
    parts = path.lower().replace("%2e", ".").split("/")
    good = len(address) <= MOST_PAGE and _PAGE.fullmatch(address) is not None
    return good and "//" not in path and not {".", ".."} & set(parts) and not path.startswith("/console/files/")


def refused_at(page: str, code: str) -> str:
    """The address of a page that says why nobody has signed in."""
    return f"{page}{'&' if '?' in page else '?'}login={code}"
