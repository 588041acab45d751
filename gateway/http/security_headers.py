"""Headers of every answer that tell a browser what it must not do with it.

An answer is not a page, unless it says so: it loads nothing, is shown in no frame and has no other type than it says.
Caches ask again before they use it. Its address is sent to no other site.
"""

from collections.abc import Iterable
from dataclasses import dataclass

Header = tuple[bytes, bytes]

ALWAYS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"private, no-cache"),
)
#: The button "back" shows an answer that is stored, also after its reader has signed out.
NOT_STORED: Header = (b"cache-control", b"no-store")
#: Two years: a browser then calls this host by TLS only.
WITH_TLS: Header = (b"strict-transport-security", b"max-age=63072000")


@dataclass(frozen=True)
class SecurityHeaders:
    """The headers of a gateway. `tls`: whether clients reach it by TLS."""

    tls: bool = False

    def missing(self, given: Iterable[Header], *, of_session: bool = False) -> list[Header]:
        """The headers that an answer does not have yet. A header of the answer itself is kept.

        `of_session`: it answers a call with the cookie of a session, so the browser must not store it.
        """
        names = {name.lower() for name, _ in given}
        every = (*ALWAYS, WITH_TLS) if self.tls else ALWAYS
        if of_session:
            every = (NOT_STORED, *(header for header in every if header[0] != NOT_STORED[0]))
        return [header for header in every if header[0] not in names]
