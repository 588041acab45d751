"""Signed checkpoints: what the log held at a position, said by somebody who was there.

The digest of the log is a running one. It begins with 64 zeros; each event makes a new one of it:

    digest = SHA-256("<digest before> <position> <digest of the event>"), in hex

A checkpoint names a position, the digest there, the time and the checkpoint before it, and is signed (Ed25519). Whoever
holds the public key and one checkpoint knows whether a log is the same up to there, however well its chains fit.

The signed bytes are lines, so that any tool can check them (`Checkpoint.text`; docs/integrity.md shows how).
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from domain.patterns import SHA256
from eventstore.log.envelope import GENESIS, Recorded
from runtime.files import files
from runtime.files.unusable import sentence
from runtime.tasks.patience import CannotRun

Digest = Annotated[str, StringConstraints(pattern=f"^{SHA256}$")]
Keys = Mapping[str, Ed25519PublicKey]
"""Public keys that are trusted, by their fingerprint."""

_END = b"-----END PUBLIC KEY-----\n"


class BadKey(CannotRun):
    """A file does not hold the key that it should."""


@dataclass(frozen=True, slots=True)
class LogDigest:
    """The digest of the log up to and including a position; `event` is the digest of the event there."""

    position: int = 0
    digest: str = GENESIS
    event: str = GENESIS

    def after(self, recorded: Recorded) -> "LogDigest":
        link = f"{self.digest} {recorded.position} {recorded.digest}"
        return LogDigest(recorded.position, hashlib.sha256(link.encode()).hexdigest(), recorded.digest)


class Checkpoint(BaseModel):
    """One signed statement, as it stands in its stream and in archives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log: str = Field(max_length=255)
    position: int = Field(ge=1)
    digest: Digest
    event: Digest = Field(description="digest of the event at this position")
    time: AwareDatetime
    previous: Digest = Field(description="the checkpoint before this one; zeros in the first")
    key: str = Field(max_length=64, description="fingerprint of the public key")
    signature: str = Field(default="", max_length=128, description="base64")

    @property
    def text(self) -> bytes:
        """What is signed."""
        lines = (
            "nebula checkpoint 1",
            f"log: {self.log}",
            f"position: {self.position}",
            f"digest: {self.digest}",
            f"event: {self.event}",
            f"time: {self.time.isoformat()}",
            f"previous: {self.previous}",
            f"key: {self.key}",
        )
        return "".join(f"{line}\n" for line in lines).encode()

    @property
    def id(self) -> str:
        """What the next checkpoint calls this one."""
        return hashlib.sha256(self.text + self.signature.encode()).hexdigest()

    @property
    def at(self) -> LogDigest:
        return LogDigest(self.position, self.digest, self.event)

    def signed_by(self, keys: Keys) -> bool:
        """Whether one of the keys signed it."""
        key = keys.get(self.key)
        if key is None:
            return False
        try:
            signature = base64.b64decode(self.signature, validate=True)
            key.verify(signature, self.text)
        except (InvalidSignature, ValueError):
            return False
        return base64.b64encode(signature).decode() == self.signature


def sign(key: Ed25519PrivateKey, log: str, at: LogDigest, previous: str, time: datetime) -> Checkpoint:
    """A checkpoint of what the log held."""
    stated = Checkpoint(
        log=log,
        position=at.position,
        digest=at.digest,
        event=at.event,
        time=time,
        previous=previous,
        key=fingerprint(key.public_key()),
    )
    return stated.model_copy(update={"signature": base64.b64encode(key.sign(stated.text)).decode()})


def fingerprint(key: Ed25519PublicKey) -> str:
    """32 hex digits that name a public key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:32]


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key from its file (PEM), made with mode 0600 at first use; its public key is published beside it.

    Raises BadKey when the file holds something else.
    """
    if not path.exists():
        fresh = Ed25519PrivateKey.generate()
        files.put_once(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise BadKey(f"{path}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"{path} holds a key that is not Ed25519")
    _publish(public_path(path), key.public_key())
    return key


def public_path(path: Path) -> Path:
    """Where the public key of a signing key's file is."""
    return path.with_suffix(".pub")


def public_keys(path: Path) -> Keys:
    """The public keys (PEM, one behind the other) in a file. Raises BadKey when there is none, or something else."""
    found = {}
    try:
        blocks = path.read_bytes().split(_END)[:-1]
        for block in blocks:
            key = load_pem_public_key(block + _END)
            if not isinstance(key, Ed25519PublicKey):
                raise BadKey(f"{path} holds a key that is not Ed25519")
            found[fingerprint(key)] = key
    except OSError as error:
        raise BadKey(sentence(error, path)) from error
    except ValueError as error:
        raise BadKey(f"{path}: {error}") from error
    if not found:
        raise BadKey(f"{path} holds no public key")
    return found


def _publish(path: Path, key: Ed25519PublicKey) -> None:
    """Add the public key to the file, in front: keys that were used before still prove what they signed."""
    known = public_keys(path) if path.exists() else {}
    if fingerprint(key) not in known:
        before = path.read_bytes() if path.exists() else b""
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        files.put(path, pem + before, 0o644)
