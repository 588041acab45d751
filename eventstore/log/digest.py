"""The digest of an event, which the aggregate's next event names."""

import hashlib
from collections.abc import Mapping

from eventstore.log.layout import layout

_SHA256 = hashlib.sha256()
"""A copy of it is made faster than a new one: OpenSSL need not look up the algorithm."""


def digest(subject: str, headers: Mapping[str, str], body: bytes) -> str:
    """SHA-256, in hex, of subject, `ce-` headers (sorted by name, one `name: value` line each) and body."""
    found = layout(tuple(headers))
    return digest_of(found.text % (subject, *found.values(headers)), body)


def digest_of(text: str, body: bytes) -> str:
    """The same, given the text of subject and headers."""
    whole = _SHA256.copy()
    whole.update(text.encode(errors="replace") + body)
    return whole.hexdigest()
