"""The master key, which wraps the vault's keys (AES-256-GCM), and its rotation.

Its file has one key per line (base64 of 32 bytes): the first key wraps, all of them unwrap. A rotation has three steps:
`begin` adds a new key as the first line, `rewrap` wraps each stored key with it, `finish` removes the old keys. Each
step can be interrupted anywhere and repeated. Processes that run meanwhile notice the new file and use it.
"""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eventstore.log.jetstream import Conflict
from eventstore.vault.keystore import Entry, KeyStore
from runtime import subjects
from runtime.files import files
from runtime.tasks.patience import CannotRun

NONCE = 12
SIZE = NONCE + 32 + 16
"""Bytes of a wrapped key."""


class WrongMasterKey(CannotRun):
    """A wrapped key cannot be unwrapped: the master key file is not the one that it was wrapped with."""


def master_keys(path: Path) -> list[bytes]:
    """The master keys in the file. The file is created at first use, with mode 0600. Raises WrongMasterKey, OSError."""
    if not path.exists():
        files.put_once(path, _encoded([secrets.token_bytes(32)]))
    return _decoded(path)


def wrap(master: bytes, name: str, key: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE)
    return nonce + AESGCM(master).encrypt(nonce, key, name.encode())


def unwrap(masters: Sequence[bytes], name: str, wrapped: bytes) -> tuple[bytes, int]:
    """The key, and the index of the master key that it was wrapped with. Raises WrongMasterKey."""
    for index, master in enumerate(masters):
        try:
            return AESGCM(master).decrypt(wrapped[:NONCE], wrapped[NONCE:], name.encode()), index
        except (InvalidTag, ValueError):
            continue
    raise WrongMasterKey("the master key is not the one that the vault's keys were wrapped with; restore its file")


class Ring:
    """The master keys. They are read again whenever their file has changed."""

    def __init__(self, source: Path | bytes) -> None:
        self._path = source if isinstance(source, Path) else None
        self._keys = master_keys(source) if isinstance(source, Path) else [source]
        self._read = self._stamp()

    def wrap(self, name: str, key: bytes) -> bytes:
        return wrap(self._current()[0], name, key)

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        """Raises WrongMasterKey."""
        return unwrap(self._current(), name, wrapped)[0]

    def _current(self) -> list[bytes]:
        stamp = self._stamp()
        if self._path is not None and stamp is not None and stamp != self._read:
            self._keys, self._read = _decoded(self._path), stamp
        return self._keys

    def _stamp(self) -> tuple[int, int] | None:
        """A value that changes with the content of the file. None while there is no file; the known keys then stay."""
        try:
            found = self._path.stat() if self._path is not None else None
        except FileNotFoundError:
            return None
        return (found.st_ino, found.st_mtime_ns) if found is not None else None


# ── rotation ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """The result of `rewrap`: numbers of keys that were wrapped now, and that already were."""

    changed: int
    already: int
    #: names whose values no master key can unwrap: junk, or a key of another master key
    not_opened: tuple[str, ...] = ()


def begin(path: Path) -> list[bytes]:
    """Add a new key as the first line of the file, unless a rotation is in progress. Returns all keys, newest first."""
    keys = master_keys(path)
    if len(keys) == 1:
        keys = [secrets.token_bytes(32), *keys]
        files.put(path, _encoded(keys))
    return keys


async def rewrap(store: KeyStore, old: Sequence[bytes], new: bytes) -> Rewrapped:
    """Wrap each stored key with `new` that is wrapped with one of `old`. Keys that are wrapped with `new` already stay.

    A key that is created or destroyed in the meantime is left unchanged. A value that no master key can unwrap is
    skipped and named in the result: the old master keys are not needed for it. Raises WrongMasterKey if no value at all
    can be unwrapped and one of them may be a key: then the file probably belongs to another cloud.
    """
    changed, already, not_opened, likely = 0, 0, list[str](), ""
    for name in sorted(await store.names()):
        if not subjects.TOKEN.fullmatch(name):  # the platform does not use such names
            not_opened.append(name)
            continue
        while True:
            values = await store.values(name)
            found = newest_key([new, *old], name, values)
            if found is None:
                if values and values[0].value is not None:
                    not_opened.append(name)
                    likely = name if any(len(value.value or b"") == SIZE for value in values) else likely
                break
            key, index, revision = found
            if index == 0:
                await store.erase_earlier(name, revision)
                already += 1
                break
            try:
                await store.put(name, wrap(new, name, key), last=values[0].revision)
            except Conflict:
                continue
            changed += 1
            break
    if likely and not changed and not already:
        raise WrongMasterKey(
            f"no master key in the file opens any stored key, such as that of {likely}; restore the file"
        )
    return Rewrapped(changed, already, tuple(not_opened))


def newest_key(masters: Sequence[bytes], name: str, values: Sequence[Entry]) -> tuple[bytes, int, int] | None:
    """The newest key that a master key can unwrap, the index of that master key, and the revision of the value.

    None if there is none, or the key was destroyed.
    """
    for value in values:
        if value.value is None:
            return None
        try:
            return (*unwrap(masters, name, value.value), value.revision)
        except WrongMasterKey:
            continue
    return None


def finish(path: Path) -> None:
    """Remove all keys but the newest from the file. Call it only after a `rewrap` that had nothing to change."""
    files.put(path, _encoded(_decoded(path)[:1]))


def _encoded(keys: Sequence[bytes]) -> bytes:
    return b"".join(base64.b64encode(key) + b"\n" for key in keys)


def _decoded(path: Path) -> list[bytes]:
    try:
        keys = [base64.b64decode(text) for text in path.read_bytes().split()]
    except ValueError:
        keys = []
    if not keys or any(len(key) != 32 for key in keys):
        raise WrongMasterKey(f"{path} must have a key of 32 bytes in base64 on each line; restore the file")
    return keys
