"""Signed checkpoints: signed statements of the digest of the log at a position.

The digest of the log begins with 64 zeros, and each event updates it:

    digest = SHA-256("<previous digest> <position> <digest of the event>"), in hex

A checkpoint has a position, the digest there, the time and the id of the previous checkpoint, and is signed (Ed25519).
With the public key and one checkpoint anybody can check that a log is the same up to that position, even if the chains
of its aggregates were forged consistently.

The signed bytes are lines of text, so that any tool can check them (`Checkpoint.text`; docs/integrity.md shows how).
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
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

Range = tuple[int, int]
"""The first and the last of a range of positions."""

_EXCLUDED = r"^[1-9][0-9]{0,18}(-[1-9][0-9]{0,18})?( [1-9][0-9]{0,18}(-[1-9][0-9]{0,18})?)*$"

Digest = Annotated[str, StringConstraints(pattern=f"^{SHA256}$")]
Keys = Mapping[str, Ed25519PublicKey]
"""Trusted public keys by fingerprint."""

_END = b"-----END PUBLIC KEY-----\n"


class BadKey(CannotRun):
    """A file does not contain a valid key."""


@dataclass(frozen=True, slots=True)
class LogDigest:
    """The digest of the log up to and including a position; `event`: the digest of the event there."""

    position: int = 0
    digest: str = GENESIS
    event: str = GENESIS

    def after(self, recorded: Recorded) -> "LogDigest":
        link = f"{self.digest} {recorded.position} {recorded.digest}"
        return LogDigest(recorded.position, hashlib.sha256(link.encode()).hexdigest(), recorded.digest)


class Checkpoint(BaseModel):
    """One signed statement, as stored in its stream and in archives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log: str = Field(max_length=255)
    position: int = Field(ge=1)
    digest: Digest
    event: Digest = Field(description="digest of the event at this position")
    time: AwareDatetime
    previous: Digest = Field(description="the checkpoint before this one; zeros in the first")
    key: str = Field(max_length=64, description="fingerprint of the public key")
    excluded: str | None = Field(
        default=None,
        max_length=16384,
        pattern=_EXCLUDED,
        description="positions since the checkpoint before, such as `5 7-9`, whose messages handlers did not write",
    )
    signature: str = Field(default="", max_length=128, description="base64")

    @property
    def text(self) -> bytes:
        """The signed bytes."""
        lines = (
            "nebula checkpoint 1",
            f"log: {self.log}",
            f"position: {self.position}",
            f"digest: {self.digest}",
            f"event: {self.event}",
            f"time: {self.time.isoformat()}",
            f"previous: {self.previous}",
            f"key: {self.key}",
            *([f"excluded: {self.excluded}"] if self.excluded is not None else []),
        )
        return "".join(f"{line}\n" for line in lines).encode()

    @property
    def id(self) -> str:
        """The id of this checkpoint, which is `previous` of the next one."""
        return hashlib.sha256(self.text + self.signature.encode()).hexdigest()

    @property
    def excluded_ranges(self) -> list[Range]:
        """The ranges of positions whose messages handlers did not write."""
        parts = [part.partition("-") for part in (self.excluded or "").split()]
        return [(int(low), int(high or low)) for low, _, high in parts]

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


def sign(
    key: Ed25519PrivateKey, log: str, at: LogDigest, previous: str, time: datetime, excluded: Sequence[Range] = ()
) -> Checkpoint:
    """Sign a checkpoint of the log."""
    stated = Checkpoint(
        log=log,
        position=at.position,
        digest=at.digest,
        event=at.event,
        time=time,
        previous=previous,
        key=fingerprint(key.public_key()),
        excluded=written(excluded),
    )
    return stated.model_copy(update={"signature": base64.b64encode(key.sign(stated.text)).decode()})


def written(ranges: Sequence[Range]) -> str | None:
    """Ranges of positions as text; None if there are none."""
    return " ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges) or None


def fingerprint(key: Ed25519PublicKey) -> str:
    """The name of a public key: 32 hex digits."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:32]


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The signing key in a file (PEM), which is created at first use with mode 0600. Its public key is added to the
    `.pub` file with the same name.

    Raises BadKey if the file contains something else, OSError.
    """
    if not path.exists():
        fresh = Ed25519PrivateKey.generate()
        files.put_once(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise BadKey(f"{path}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"{path} has a key that is not Ed25519; restore the file, or delete it to get a new key")
    _publish(public_path(path), key.public_key())
    return key


def public_path(path: Path) -> Path:
    """The path of the public key of a signing key."""
    return path.with_suffix(".pub")


def public_keys(path: Path) -> Keys:
    """The public keys (PEM) in a file. Raises BadKey if there is none, or the file contains something else."""
    found = {}
    try:
        blocks = path.read_bytes().split(_END)[:-1]
        for block in blocks:
            key = load_pem_public_key(block + _END)
            if not isinstance(key, Ed25519PublicKey):
                raise BadKey(f"{path} has a key that is not Ed25519; give the file with the notary's public keys")
            found[fingerprint(key)] = key
    except OSError as error:
        raise BadKey(sentence(error, path)) from error
    except ValueError as error:
        raise BadKey(f"{path}: {error}") from error
    if not found:
        raise BadKey(f"{path} has no public key; give the file with the notary's public keys")
    return found


def _publish(path: Path, key: Ed25519PublicKey) -> None:
    """Add the public key at the beginning of the file. Earlier keys stay, since their signatures stay valid."""
    known = public_keys(path) if path.exists() else {}
    if fingerprint(key) not in known:
        before = path.read_bytes() if path.exists() else b""
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        files.put(path, pem + before, 0o644)
