"""The key of each node: it proves who wrote a message between handlers and this node, for which subject and purpose.

Handlers have one root key in `node.keys`. The key of a node follows from the root and the node's name (HKDF-SHA256),
so nothing is stored for each node, and a node that knows its own key knows no other. The file `node.key` of a node
has only its own. A key is 64 hex digits, and only the owner can read both files.

While keys are rotated, `node.keys` has the new root in its first line, and below it the one before. Then handlers sign
with both, so that each host accepts what they write, whichever of the two keys it has.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from runtime.files.files import put, put_once
from runtime.tasks.patience import CannotRun

MAC = "Nebula-Mac"
WANTED = "wanted"
"""The label of wanted documents and tombstones. Each purpose has a label, so that no message passes for another."""
REPORT, HEARTBEAT, REGISTER, LEAVE = "report", "heartbeat", "register", "leave"
"""The labels of what a node says."""
ANSWER = "answer"
"""The label of answers of handlers to a registration, a return of a lease, and a heartbeat (`answering`)."""
LEASE = "lease"
"""The label of lease notes."""
CHALLENGE = "challenge"
"""The label of challenges."""
FRESH = 30.0
"""Seconds for which a challenge is valid, by the clock of handlers."""
SIZE = 32
"""Bytes of a key."""

_SALT = b"nebula node keys 1"
_TAG = 16
"""Bytes of a tag."""
_BETWEEN = ","
"""Between the tags of several keys."""
_MOST = 2
"""At most so many roots are in a file, and tags in a MAC."""


@dataclass(frozen=True)
class NodeKeys:
    """The keys of all nodes. `earlier`: the root before this one, while its keys are replaced."""

    root: bytes = field(repr=False)
    earlier: bytes | None = field(default=None, repr=False)

    def of(self, node: str) -> bytes:
        """The key of a node, for its host."""
        return derived(self.root, node)

    def each(self, node: str) -> tuple[bytes, ...]:
        """The keys that a node may have: one for each root."""
        return tuple(derived(root, node) for root in self._roots)

    def mac(self, node: str, label: str, subject: str, body: bytes) -> str:
        """The value of the header: a tag for each root."""
        return _BETWEEN.join(tag(derived(root, node), label, subject, body) for root in self._roots)

    def valid(self, node: str, label: str, subject: str, body: bytes, mac: str | None) -> bool:
        """Whether handlers or the node made the MAC, with one of the roots."""
        return any(valid(derived(root, node), label, subject, body, mac) for root in self._roots)

    def is_current(self, node: str, label: str, subject: str, body: bytes, mac: str | None) -> bool:
        """Whether handlers would make the same MAC now."""
        return hmac.compare_digest(self.mac(node, label, subject, body).encode(), (mac or "").encode(errors="replace"))

    @property
    def _roots(self) -> tuple[bytes, ...]:
        return (self.root,) if self.earlier is None else (self.root, self.earlier)

    def challenge(self, node: str, purpose: str, now: float) -> str:
        """A text that a node has to repeat, which shows that its message is not older. `now`: seconds since 1970.
        `purpose`: what it is valid for.

        Nothing is stored for it, so each handlers process accepts the challenges of the others.
        """
        second = str(int(now))
        return f"{second}-{tag(self.of(node), CHALLENGE, purpose, second.encode())}"

    def age(self, node: str, purpose: str, challenge: str, now: float) -> float | None:
        """How many seconds ago handlers made this challenge; None if they did not, or it is not valid any more."""
        second, _, mac = challenge.partition("-")
        if not self.valid(node, CHALLENGE, purpose, second.encode(errors="replace"), mac):
            return None
        age = now - int(second)
        return age if abs(age) <= FRESH else None


@lru_cache(maxsize=4096)
def derived(root: bytes, node: str) -> bytes:
    """The key of a node (HKDF-SHA256, RFC 5869)."""
    extracted = hmac.digest(_SALT, root, hashlib.sha256)
    return hmac.digest(extracted, node.encode() + b"\x01", hashlib.sha256)


def tag(key: bytes, label: str, subject: str, body: bytes) -> str:
    """The tag of a message: 32 hex digits. Neither labels nor subjects contain a zero byte."""
    covered = b"%b\0%b\0%b" % (label.encode(), subject.encode(), body)
    return hmac.digest(key, covered, "sha256")[:_TAG].hex()


def valid(key: bytes, label: str, subject: str, body: bytes, mac: str | None) -> bool:
    """Whether the tag of the message is in its MAC."""
    expected = tag(key, label, subject, body).encode()
    given = (mac or "").encode(errors="replace").split(_BETWEEN.encode(), _MOST)[:_MOST]
    return any(hmac.compare_digest(expected, one) for one in given)


def signed(key: bytes | None, label: str, subject: str, body: bytes) -> dict[str, str] | None:
    """The headers of a message that a node signs; None if it has no key."""
    return {MAC: tag(key, label, subject, body)} if key is not None else None


def answering(request: bytes, answer: bytes) -> bytes:
    """What the tag of an answer covers: the request too, so that it answers no other."""
    return hashlib.sha256(request).digest() + answer


def node_keys(path: Path) -> NodeKeys:
    """The keys of all nodes; the file is made if it does not exist. Raises CannotRun, OSError."""
    if not path.exists():
        put_once(path, secrets.token_hex(SIZE).encode() + b"\n")
    return read_root(path)


def rotate(path: Path) -> NodeKeys:
    """Make a new root. The one before stays until `finish`. Raises CannotRun if there are two already, OSError."""
    before = read_root(path)
    if before.earlier is not None:
        raise CannotRun(f"{path} has an earlier root, which is being replaced: finish that first")
    return _write(path, NodeKeys(secrets.token_bytes(SIZE), before.root))


def finish(path: Path) -> NodeKeys:
    """Remove the earlier root: its keys count no more. Raises CannotRun, OSError."""
    return _write(path, NodeKeys(read_root(path).root))


def _write(path: Path, keys: NodeKeys) -> NodeKeys:
    put(path, "".join(f"{root.hex()}\n" for root in (keys.root, keys.earlier) if root is not None))
    return keys


def read_root(path: Path) -> NodeKeys:
    """The keys of all nodes. Raises CannotRun, OSError."""
    found = _keys_in(path)
    if len(found) > _MOST:
        raise CannotRun(f"{path} has more than {_MOST} roots: keep the newest in its first line, and the one before")
    return NodeKeys(*found)


def give(keys: NodeKeys, node: str, path: Path) -> None:
    """Write the key of a node for its daemon. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, keys.of(node).hex() + "\n")


def read_key(path: Path) -> bytes:
    """The key in a file. Raises CannotRun if it is no key, OSError."""
    found = _keys_in(path)
    if len(found) > 1:
        raise CannotRun(f"{path} has more than one key: it must have that of its node only")
    return found[0]


def _keys_in(path: Path) -> list[bytes]:
    """The keys in a file, one in each line. Raises CannotRun if one is no key, OSError."""
    try:
        found = [bytes.fromhex(line) for line in path.read_bytes().decode().strip().splitlines()]
    except ValueError:  # without details, which may contain the key
        found = []
    if not found or any(len(key) != SIZE for key in found):
        raise CannotRun(f"{path} is not a file with a key, or is damaged: restore it, or write it again")
    return found
