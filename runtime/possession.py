"""Proofs that a host has the private keys of the public keys that it sends to join.

The owner of each key signs what the keys are for: the token, by its digest, the node, and all keys that are sent
together. So a proof is worth nothing for another token or name, nor beside another key.
"""

import base64
import binascii

import nkeys
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey


def text(node: str, digest: str, public_key: str, guest_key: str | None) -> bytes:
    """What is signed to join. `digest`: the SHA-256 of the join token, in hexadecimal digits."""
    return "\n".join(("nebula-join 1", node, digest, public_key, guest_key or "-")).encode()


def proof(seed: str, signed: bytes) -> str:
    """The signature of the key with this seed, in base64url."""
    signature: bytes = nkeys.from_seed(bytearray(seed.encode())).sign(signed)
    return base64.urlsafe_b64encode(signature).decode()


def is_proven(public_key: str, signed: bytes, given: str) -> bool:
    """Whether `given` is the signature of the owner of a public key (nkey)."""
    try:
        raw = base64.b32decode(public_key)[1:33]  # the first byte is its sort, the last two are a checksum
        VerifyKey(raw).verify(signed, base64.b64decode(given, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError, CryptoError):
        return False
    return True
