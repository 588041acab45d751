"""Keys of NATS (nkeys: Ed25519): of the operator, of accounts and of users."""

import base64
import os
from enum import Enum
from pathlib import Path

import nkeys

from runtime.files.files import put_once


class Owner(Enum):
    """Whose key it is. A public key begins with O, A or U."""

    OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
    ACCOUNT = nkeys.PREFIX_BYTE_ACCOUNT
    USER = nkeys.PREFIX_BYTE_USER


class WrongKey(ValueError):
    """A seed or a public key is malformed, or of another sort. The text does not repeat it."""


class Key:
    """A private key. Its seed is a secret."""

    def __init__(self, seed: bytes) -> None:
        """Raises WrongKey."""
        try:
            self._pair = nkeys.from_seed(bytearray(seed.strip()))
            self.public: str = self._pair.public_key.decode()
        except Exception as error:  # nkeys raises errors of many sorts
            raise WrongKey("this is no seed of a NATS key") from error
        self.seed = bytes(seed.strip())

    def __repr__(self) -> str:
        return f"Key({self.public})"

    def sign(self, data: bytes) -> bytes:
        signature: bytes = self._pair.sign(data)
        return signature


def new(owner: Owner) -> Key:
    return Key(nkeys.encode_seed(os.urandom(32), owner.value))


def kept(file: Path, owner: Owner) -> Key:
    """The key in a file, which is made at first use, readable for its owner only. Raises OSError, WrongKey."""
    if not file.exists():
        put_once(file, new(owner).seed + b"\n")
    return Key(file.read_bytes())


def check_user(public: str) -> str:
    """The public key, if it is one of a user. Raises WrongKey."""
    try:
        raw = base64.b32decode(public) if len(public) == 56 else b""
    except ValueError:
        raw = b""
    if len(raw) != 35 or raw[0] != Owner.USER.value or nkeys.crc16_checksum(raw[:-2]) != raw[-2:]:
        raise WrongKey("this is no public key of a user of NATS")
    return public
