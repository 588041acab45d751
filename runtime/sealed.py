"""Secrets on their way to one host: only who has the seed of an ed25519 key (nkey) can open them.

The box is libsodium's sealed box, for the X25519 key that belongs to the ed25519 key.
"""

import base64
import binascii

import nkeys
from nacl.exceptions import CryptoError
from nacl.public import SealedBox
from nacl.signing import SigningKey, VerifyKey


def seal(public_key: str, secret: bytes) -> str:
    """`secret` for the owner of a public nkey, in base64. Raises ValueError if it is no public key."""
    try:
        raw = base64.b32decode(public_key)[1:33]  # the first byte is its sort, the last two are a checksum
        return base64.b64encode(SealedBox(VerifyKey(raw).to_curve25519_public_key()).encrypt(secret)).decode()
    except (binascii.Error, TypeError, ValueError, RuntimeError, CryptoError) as error:
        raise ValueError("not an ed25519 public key") from error


def unseal(seed: str, sealed: str) -> bytes:
    """What `seal` was given, with the seed of the key. Raises ValueError if it is for another key, or damaged."""
    try:
        box = base64.b64decode(sealed, validate=True)
        _, raw = nkeys.decode_seed(seed.encode())
        return bytes(SealedBox(SigningKey(bytes(raw)).to_curve25519_private_key()).decrypt(box))
    except (binascii.Error, TypeError, ValueError, CryptoError, nkeys.NkeysError) as error:
        raise ValueError("it was not sealed for this key, or is damaged") from error
