"""The MAC of an event: it proves that a process of the handlers wrote the event.

Each event has the header `Nebula-Mac: <key id>:<tag>`. The tag is the HMAC-SHA256 of the event's digest, cut to 128
bits. The digest covers the subject, all `ce-` headers and the body, so the tag does too. No digest covers the header
itself: chains, checkpoints and archives are the same with and without MACs.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

MAC = "Nebula-Mac"
KEY_SIZE = 32

_LABEL = b"nebula event 1 "
_TAG = 32
"""Hex digits of a tag."""
_BLOCK = 64
"""Bytes that SHA-256 reads at a time."""
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
"""The pads of HMAC (RFC 2104), as tables for `bytes.translate`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the MAC of an event is not accepted. `code`: see docs/integrity.md; `reason`: for people."""

    code: str
    reason: str


class EventKeys(Protocol):
    """Makes and checks the MACs of events. The file of keys (`keyring.py`), or fixed keys."""

    def ready(self) -> None:
        """Raises Unavailable while there are no keys."""

    def mac(self, digest: str) -> str:
        """The value of the header for an event with this digest."""

    def fault(self, position: int, digest: str, mac: str | None) -> Fault | None:
        """Why the event at this position was not written by handlers; None if it was."""


@dataclass(frozen=True)
class Key:
    """One key. `until`: the last position of an event that it may sign; None: any position."""

    secret: bytes = field(repr=False)
    until: int | None = None

    @cached_property
    def tag(self) -> Callable[[str], str]:
        """Makes the tag of an event with a digest."""
        return tagger(self.secret)

    @cached_property
    def id(self) -> str:
        """The name of the key: 8 hex digits, which follow from the key."""
        return hashlib.sha256(b"nebula event key " + self.secret).hexdigest()[:8]


class Keys:
    """Keys of one log. `signer`: the id of the key for new events; `since`: events up to this position need no MAC."""

    def __init__(self, keys: Mapping[str, Key], signer: str, since: int) -> None:
        self.by_id = keys
        self.signer = signer
        self.since = since
        self._tag = keys[signer].tag
        self._prefix = f"{signer}:"

    def ready(self) -> None:
        """There are keys."""

    def mac(self, digest: str) -> str:
        return self._prefix + self._tag(digest)

    def fault(self, position: int, digest: str, mac: str | None) -> Fault | None:
        if position <= self.since:
            return None
        if mac is None:
            return Fault("no_mac", "the event has no MAC: handlers did not write it")
        id_, _, given = mac.partition(":")
        key = self.by_id.get(id_)
        if key is None:
            return Fault("forged", "the MAC of the event names a key that is not in the file of event keys")
        if not hmac.compare_digest(key.tag(digest).encode(), given.encode(errors="replace")):
            return Fault("forged", "the MAC of the event is wrong: handlers did not write it, or it was altered")
        if key.until is not None and position > key.until:
            return Fault("forged", f"the MAC of the event is of key {id_}, which signs nothing after {key.until}")
        return None


def tagger(secret: bytes, label: bytes = _LABEL) -> Callable[[str], str]:
    """A function that makes the tag of a digest: 32 hex digits of `hmac.digest` of label and digest.

    Raises ValueError if the key has more than 64 bytes.

    The two hashes of an HMAC begin with the key. This part of them is computed once, and OpenSSL does not look up the
    algorithm for each event.
    """
    if len(secret) > _BLOCK:
        raise ValueError(f"a key has at most {_BLOCK} bytes")
    block = secret.ljust(_BLOCK, b"\0")
    inner = hashlib.sha256(block.translate(_INNER) + label)
    outer = hashlib.sha256(block.translate(_OUTER))

    def tag(digest: str) -> str:
        first = inner.copy()
        first.update(digest.encode())
        second = outer.copy()
        second.update(first.digest())
        return second.hexdigest()[:_TAG]

    return tag
