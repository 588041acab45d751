"""Sessions of browsers: a cookie instead of a token, for the pages of the console.

A page sends its token once, to `POST /v1/session`. The cookie that it gets holds the token, sealed with a key that only
gateways have. So each call with the cookie is judged as a call with the token: what ends the token ends the session.
A script of the page cannot read the cookie (HttpOnly), and other sites cannot make a browser send it (SameSite). Calls
that change something need a second proof, the header `X-CSRF-Token`, which only a page of this site knows.

A gateway remembers the sessions that were ended with `DELETE /v1/session`; another gateway learns of it only when the
token is revoked. A session lasts at most `SECONDS`. One that began at an OIDC issuer has the issuer's refresh token in
its cookie, if there is room for it: then it can be renewed when its token is about to expire, until `SECONDS` are over.
"""

import hashlib
import hmac
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from gateway.access.sealing import Ended, Seal, derived, set_cookie, value_of
from gateway.http.problems import Problem

#: Seconds after which a browser has to send its token again.
SECONDS = 8 * 3600
CSRF_HEADER = "X-CSRF-Token"
#: The methods that change nothing.
SAFE = frozenset({"GET", "HEAD"})

#: Browsers keep no larger cookie, in bytes.
MOST_COOKIE = 3800


class TooLong(ValueError):
    """A token does not fit into a cookie."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session of a browser: its id, its token, and when it ends (seconds since 1970).

    `refresh`: what the issuer gives a new token for. `last`: when the session ends, however often it is renewed.
    """

    id: str
    token: str
    ends: int
    refresh: str | None = None
    last: int | None = None

    @property
    def renewable(self) -> bool:
        """Whether a new token would make it longer."""
        return self.refresh is not None and self.last is not None and self.ends < self.last


@dataclass
class Sessions:
    """Makes and reads the cookies of sessions. `key`: 32 bytes that all gateways share.

    `tls`: whether browsers reach this gateway by TLS. Only then the cookie can be bound to this host (`__Host-`).
    """

    key: bytes
    tls: bool = False
    now: Callable[[], float] = time.time
    _ended: Ended = field(default_factory=Ended)

    @property
    def name(self) -> str:
        """The name of the cookie."""
        return "__Host-nebula-session" if self.tls else "nebula-session"

    def begin(self, token: str, ends: float | None = None, refresh: str | None = None) -> tuple[Session, str]:
        """A new session for a token, and the value of its `Set-Cookie`. `ends`: when the token expires.

        Raises TooLong.
        """
        last = int(self.now() + SECONDS)
        begun = Session(os.urandom(16).hex(), token, int(min(last, ends or last)))
        return self._kept(begun if refresh is None else replace(begun, refresh=refresh, last=last))

    def renew(self, session: Session, token: str, ends: float | None, refresh: str | None) -> tuple[Session, str]:
        """The same session with a new token, and the value of its `Set-Cookie`. Raises TooLong."""
        last = session.last or session.ends
        return self._kept(replace(session, token=token, ends=int(min(last, ends or last)), refresh=refresh))

    def _kept(self, session: Session) -> tuple[Session, str]:
        """A session as it fits into a cookie: a refresh token that is too long is left out. Raises TooLong."""
        sealed = self._sealed(session)
        if len(sealed) > MOST_COOKIE and session.refresh is not None:
            return self._kept(replace(session, refresh=None, last=None))
        if len(sealed) > MOST_COOKIE:
            text = f"a token of {len(session.token)} bytes does not fit into a cookie; use a token of this platform"
            raise TooLong(text)
        return session, self._set_cookie(sealed, session.ends - int(self.now()))

    def end(self, session: Session) -> str:
        """End a session. Returns the value of a `Set-Cookie` that removes the cookie."""
        self._ended.add(session.id)
        return self._set_cookie("", 0)

    def csrf(self, session: Session) -> str:
        """The second proof for calls of this session that change something."""
        return hmac.digest(derived(self.key, b"csrf"), session.id.encode(), hashlib.sha256).hex()

    def offered(self, cookies: str | None) -> Session | None:
        """The session of a `Cookie` header; None if it names none, or one that is over."""
        try:
            sealed = value_of(cookies, self.name)
            session = Session(**Seal(self.key, b"seal").open(sealed)) if sealed is not None else None
        except (ValueError, TypeError):  # (a later version may keep more in it)
            return None
        if session is None or session.ends <= self.now() or session.id in self._ended:
            return None
        return session

    def judge(self, session: Session, method: str, proof: str | None, origin: str | None) -> None:
        """Whether a call may use the cookie alone. `method`: empty for a WebSocket. Raises Problem (403).

        A WebSocket cannot carry the header, and browsers always send its origin, which was judged before.
        """
        if method in SAFE or (not method and origin is not None):
            return
        if not hmac.compare_digest((proof or "").encode(), self.csrf(session).encode()):
            detail = f"a call with a cookie needs the header {CSRF_HEADER}; GET /v1/session has its value"
            raise Problem(403, "csrf_token_missing", detail)

    def _sealed(self, session: Session) -> str:
        values = {name: value for name, value in asdict(session).items() if value is not None}
        return Seal(self.key, b"seal").close(values)

    def _set_cookie(self, value: str, seconds: int) -> str:
        return set_cookie(self.name, value, seconds, site="Strict", tls=self.tls)
