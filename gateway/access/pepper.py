"""Tokens of the log, `nbl_<id>_<secret>`, and the pepper: the key that the log's digests of them are made with.

The log holds only an HMAC of each token. Without the pepper's file nobody can check a guess against it. All gateways of
a cloud share the file: one key of 32 bytes (in base64) per line. The first line makes digests, all lines verify them.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.files.files import put_once
from runtime.tasks.patience import CannotRun
from runtime.token_text import ID, ID_LETTERS, SECRET, SECRET_LETTERS, in_letters, joined


class BadPepper(CannotRun):
    """The pepper's file cannot be used."""


@dataclass(frozen=True, slots=True)
class Minted:
    """A token that was just made. `digest`: what the log stores of it."""

    id: str
    secret: str = field(repr=False)
    digest: str

    @property
    def text(self) -> str:
        return joined(self.id, self.secret)


@dataclass(frozen=True, slots=True)
class Pepper:
    """The keys of the file, the newest first. `_digests`: those that are derived from them, for digests."""

    _keys: Sequence[bytes] = field(repr=False)
    _digests: Sequence[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        derived = [hmac.digest(key, b"nebula: digests of tokens", hashlib.sha256) for key in self._keys]
        object.__setattr__(self, "_digests", derived)

    def mint(self, operation: str, key: str | None) -> Minted:
        """A new token. Its id follows from the operation. With an idempotency key its secret is derived, so that a
        repeat makes the same one.

        The caller's key is part of what it is derived from, and is never stored: the pepper and the log together do
        not give away any token whose key cannot be guessed.
        """
        if key is None:
            seed = secrets.token_bytes(64)
        else:
            of_secrets = hmac.digest(self._keys[0], b"nebula: secrets of tokens", hashlib.sha256)
            seed = hmac.digest(of_secrets, f"{operation}\0{key}".encode(), hashlib.sha512)
        id_ = in_letters(hashlib.sha256(f"id of a token: {operation}".encode()).digest(), ID_LETTERS, ID)
        secret = in_letters(hashlib.sha256(seed).digest(), SECRET_LETTERS, SECRET)
        return Minted(id_, secret, digest(self._digests[0], id_, secret))

    def of_sessions(self) -> bytes:
        """The key of the cookies of browsers."""
        return hmac.digest(self._keys[0], b"nebula: sessions of browsers", hashlib.sha256)

    def fits(self, id_: str, secret: str, stored: str) -> bool:
        """Whether the log's digest is that of this token. It takes the same time for every wrong secret."""
        fits = False
        for key in self._digests:
            fits |= hmac.compare_digest(digest(key, id_, secret), stored)
        return fits


def load(path: Path) -> Pepper:
    """The pepper in this file, which is made at first use, with mode 0600. Raises BadPepper, OSError."""
    if not path.exists():
        put_once(path, base64.b64encode(secrets.token_bytes(32)) + b"\n")
    try:
        keys = [base64.b64decode(line, validate=True) for line in path.read_bytes().split()]
    except ValueError:
        keys = []
    if not keys or any(len(key) != 32 for key in keys):
        raise BadPepper(f"{path} must have a key of 32 bytes in base64 on each line; restore the file")
    return Pepper(keys)


def digest(key: bytes, id_: str, secret: str) -> str:
    """HMAC-SHA256 of a token, in hex. The id is part of it: a digest in another token's event opens nothing."""
    return hmac.digest(key, f"{id_}\0{secret}".encode(), "sha256").hex()
