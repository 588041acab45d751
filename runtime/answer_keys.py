"""The key that a node and the gateways share: it proves who answered a question, and seals the bytes of a session.

It follows from an event key and the node's name (HKDF-SHA256), so handlers and gateways have it. A node gets it from
handlers, sealed with its own node key, beside the public key that checks questions (`ask_keys.py`): one for each event
key. So a node can answer for itself only, and nobody else on the bus can answer for it.

The MAC of an answer covers the signed question, whose challenge is used once. The key of a session follows from the
challenge as well.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.ask_keys import CHALLENGE, SIGNATURE
from runtime.node_keys import MAC, tag, valid

_SALT = b"nebula answer keys 1"
_LABEL = "node answer"
_OURS = "Nebula-"
_NONCE = 12
_BETWEEN = ","


@lru_cache(maxsize=4096)
def derived(event_key: bytes, node: str) -> bytes:
    """The key of one node (HKDF-SHA256, RFC 5869)."""
    return _expanded(event_key, b"answers\0" + node.encode())


def session_key(key: bytes, challenge: str, subject: str) -> bytes:
    """The key of one direction of the session that a question with this challenge opens. `subject`: where it goes."""
    return _expanded(key, b"session\0%b\0%b" % (challenge.encode(), subject.encode()))


def sealed(key: bytes, node_keys: Iterable[bytes]) -> str:
    """The key for a node: sealed with each of its node keys, of which it has one."""
    return _BETWEEN.join(_seal(key, each) for each in node_keys)


def unsealed(text: str, node_key: bytes) -> bytes | None:
    """The key, if one of the parts is for this node key."""
    cipher = AESGCM(_expanded(node_key, b"seal"))
    for part in text.split(_BETWEEN):
        box = bytes.fromhex(part)
        try:
            return cipher.decrypt(box[:_NONCE], box[_NONCE:], None)
        except InvalidTag:
            continue
    return None


def mac(
    key: bytes, subject: str, question: Mapping[str, str], asked: bytes, answer: Mapping[str, str], body: bytes
) -> str:
    """The header `MAC` of an answer. `question`, `answer`: their headers; `asked`, `body`: their bodies."""
    return tag(key, _LABEL, subject, _covered(question, asked, answer, body))


def is_answer(
    key: bytes, subject: str, question: Mapping[str, str], asked: bytes, answer: Mapping[str, str], body: bytes
) -> bool:
    """Whether the node has given this answer to this question."""
    return valid(key, _LABEL, subject, _covered(question, asked, answer, body), answer.get(MAC))


def _covered(question: Mapping[str, str], asked: bytes, answer: Mapping[str, str], body: bytes) -> bytes:
    """What the MAC covers, in parts of known lengths."""
    said = (question[CHALLENGE].encode(), question[SIGNATURE].encode(), asked)
    headers = sorted(pair for pair in answer.items() if pair[0].startswith(_OURS) and pair[0] != MAC)
    return _digest(said) + _digest(part.encode() for pair in headers for part in pair) + body


def _digest(parts: Iterable[bytes]) -> bytes:
    """One digest of several texts, of which none can pass for a part of another."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def _seal(key: bytes, node_key: bytes) -> str:
    nonce = secrets.token_bytes(_NONCE)
    return (nonce + AESGCM(_expanded(node_key, b"seal")).encrypt(nonce, key, None)).hex()


def _expanded(secret: bytes, purpose: bytes) -> bytes:
    extracted = hmac.digest(_SALT, secret, hashlib.sha256)
    return hmac.digest(extracted, purpose + b"\x01", hashlib.sha256)
