"""Cookies with what a browser keeps for the gateways, and cannot read or change: AES-GCM with a key of its purpose."""

import base64
import hashlib
import hmac
import json
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12
#: Maximum number of ids that are remembered as ended; the oldest are removed.
MOST_ENDED = 10_000


def derived(key: bytes, purpose: bytes) -> bytes:
    """The key of a purpose: what is sealed for one cannot be opened for another."""
    return hmac.digest(key, b"nebula session " + purpose, hashlib.sha256)


@dataclass(frozen=True)
class Seal:
    """Seals for one purpose. `key`: 32 bytes that all gateways share."""

    key: bytes
    purpose: bytes

    def close(self, values: dict[str, Any]) -> str:
        """The values as text that fits into a cookie."""
        nonce = os.urandom(_NONCE)
        sealed = AESGCM(derived(self.key, self.purpose)).encrypt(nonce, json.dumps(values).encode(), b"")
        return base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")

    def open(self, text: str) -> dict[str, Any]:
        """The values in a sealed text. Raises ValueError if no gateway of this platform has made it."""
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            found = json.loads(AESGCM(derived(self.key, self.purpose)).decrypt(raw[:_NONCE], raw[_NONCE:], b""))
        except InvalidTag as error:
            raise ValueError("it was not made here") from error
        if not isinstance(found, dict):
            raise ValueError("it has no values")
        return found


def value_of(cookies: str | None, name: str) -> str | None:
    """The value of one cookie in a `Cookie` header; None without it.

    Raises ValueError for a header with two of this name. Then one is of another site below the same domain, or of
    another port of the same host, and nothing tells which.
    """
    parts = (part.partition("=") for part in (cookies or "").split(";"))
    found = [value.strip() for given, _, value in parts if given.strip() == name]
    if len(found) > 1:
        raise ValueError(f"there are {len(found)} cookies {name}")
    return (found[0] or None) if found else None


def set_cookie(name: str, value: str, seconds: int, *, site: str, tls: bool) -> str:
    """The value of a `Set-Cookie` that scripts cannot read. `site`: its SameSite. With 0 seconds it is removed."""
    parts = [f"{name}={value}", "Path=/", f"Max-Age={seconds}", "HttpOnly", f"SameSite={site}"]
    return "; ".join([*parts, "Secure"] if tls else parts)


@dataclass
class Ended:
    """The ids of what has ended once and may not be used again. It remembers the last MOST_ENDED of them."""

    _ids: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._ids

    def add(self, id_: str) -> None:
        self._ids[id_] = None
        while len(self._ids) > MOST_ENDED:
            self._ids.popitem(last=False)
