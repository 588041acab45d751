"""The signature of a question from a gateway to a node: a gateway asks, for this subject, and now.

A question is signed with Ed25519. The private key follows from an event key (HKDF-SHA256), which gateways and handlers
have and nodes do not. Handlers give the public keys to nodes, so a node can check a question, and cannot make one.
Questions are rare, so the 100 µs of a signature do not matter.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

CHALLENGE = "Nebula-Challenge"
"""The header with a challenge of the node."""
SIGNATURE = "Nebula-Signature"
"""The header with the signature, in hex."""
NEW = "new"
"""In place of a challenge: the sender wants one."""
FORM = re.compile(r"[0-9]{1,12}-[0-9a-f]{16}-[0-9a-f]{32}")
"""The form of a challenge. Nothing else is signed, so that no sender chooses a part of what a signature covers."""
FRESH = 30.0
"""Seconds for which a challenge is valid, by the clock of the node that made it."""

_SALT = b"nebula ask keys 1"
_LABEL = b"ask"
_TAG = 16
"""Bytes of a challenge's tag."""


@lru_cache(maxsize=64)
def private_key(event_key: bytes) -> Ed25519PrivateKey:
    """The key that signs questions (HKDF-SHA256, RFC 5869)."""
    extracted = hmac.digest(_SALT, event_key, hashlib.sha256)
    return Ed25519PrivateKey.from_private_bytes(hmac.digest(extracted, _LABEL + b"\x01", hashlib.sha256))


def public_key(event_key: bytes) -> str:
    """The key for nodes, in hex."""
    return private_key(event_key).public_key().public_bytes_raw().hex()


def signed(event_key: bytes, subject: str, challenge: str, body: bytes) -> dict[str, str]:
    """The headers of a question. Raises ValueError if this is no challenge."""
    if not FORM.fullmatch(challenge):
        raise ValueError("not a challenge of a node")
    signature = private_key(event_key).sign(_covered(subject, challenge, body))
    return {CHALLENGE: challenge, SIGNATURE: signature.hex()}


def signer(public_keys: Iterable[str], subject: str, challenge: str, body: bytes, signature: str) -> str | None:
    """The key whose holder signed the question; None if it is none of these."""
    covered = _covered(subject, challenge, body)
    for key in public_keys:
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), covered)
        except (InvalidSignature, ValueError):
            continue
        return key
    return None


def _covered(subject: str, challenge: str, body: bytes) -> bytes:
    """What a signature covers. Neither subjects nor valid challenges contain a zero byte."""
    return b"%b\0%b\0%b\0%b" % (_LABEL, subject.encode(), challenge.encode(errors="replace"), body)


class Challenges:
    """The challenges of one node. Each is valid for some seconds, and once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._used: dict[str, float] = {}

    def new(self) -> str:
        """A challenge. Nothing is stored for it, so a flood of requests costs no memory."""
        made = f"{int(self._clock())}-{secrets.token_hex(8)}"
        return f"{made}-{self._tag(made)}"

    def fresh(self, challenge: str) -> bool:
        """Whether this object made the challenge, not too long ago, and it was not used."""
        made, _, tag = challenge.rpartition("-")
        if not hmac.compare_digest(self._tag(made).encode(), tag.encode(errors="replace")):
            return False
        return self._clock() - int(made.partition("-")[0]) <= FRESH and challenge not in self._used

    def use(self, challenge: str) -> None:
        """It is not valid any more."""
        now = self._clock()
        for old in [each for each, at in self._used.items() if now - at > FRESH]:
            del self._used[old]
        self._used[challenge] = now

    def _tag(self, made: str) -> str:
        return hmac.digest(self._secret, made.encode(errors="replace"), "sha256")[:_TAG].hex()
