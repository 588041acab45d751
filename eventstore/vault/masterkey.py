"""The master key, which wraps the vault's keys (AES-256-GCM), and how it is exchanged for another.

Its file holds one key a line (base64 of 32 bytes): the first wraps, all of them unwrap. A rotation is: a fresh key is
put in front (`begin`), every stored key is wrapped anew (`rewrap`), the old keys are dropped (`finish`). Each
step can be repeated and cut off anywhere; processes that run meanwhile notice the new file and go on.
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
    """A wrapped key does not open: the master key file is not the one it was wrapped with."""


def master_keys(path: Path) -> list[bytes]:
    """The master keys in the file, which is made with mode 0600 at first use."""
    if not path.exists():
        files.put_once(path, _encoded([secrets.token_bytes(32)]))
    return _decoded(path)


def wrap(master: bytes, name: str, key: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE)
    return nonce + AESGCM(master).encrypt(nonce, key, name.encode())


def unwrap(masters: Sequence[bytes], name: str, wrapped: bytes) -> tuple[bytes, int]:
    """The key, and which of the master keys it was wrapped with. Raises WrongMasterKey."""
    for index, master in enumerate(masters):
        try:
            return AESGCM(master).decrypt(wrapped[:NONCE], wrapped[NONCE:], name.encode()), index
        except (InvalidTag, ValueError):
            continue
    raise WrongMasterKey("the master key is not the one the keys were wrapped with")


class Ring:
    """The master keys, read again whenever their file has changed."""

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
        """Tells one content of the file from the next. None while there is no file: then what was read counts."""
        try:
            found = self._path.stat() if self._path is not None else None
        except FileNotFoundError:
            return None
        return (found.st_ino, found.st_mtime_ns) if found is not None else None


# ── rotation ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What a pass over the stored keys came to."""

    changed: int
    already: int
    #: names under which something is stored that no master key opens: junk, or a key of another master key
    strange: tuple[str, ...] = ()


def begin(path: Path) -> list[bytes]:
    """Put a fresh key in front of the file's, unless a rotation is under way; all keys, the newest first."""
    keys = master_keys(path)
    if len(keys) == 1:
        keys = [secrets.token_bytes(32), *keys]
        files.put(path, _encoded(keys))
    return keys


async def rewrap(store: KeyStore, old: Sequence[bytes], new: bytes) -> Rewrapped:
    """Wrap every stored key with `new` that is wrapped with one of `old`. What is done already stays.

    A key that is destroyed or made meanwhile is left as it is. What none of them opens is passed over and named: no
    master key that is given up here is needed for it. Raises WrongMasterKey when they open nothing at all, but
    something could be a key: then the file is likely another cloud's.
    """
    changed, already, strange, likely = 0, 0, list[str](), ""
    for name in sorted(await store.names()):
        if not subjects.TOKEN.fullmatch(name):  # no key of ours has such a name
            strange.append(name)
            continue
        while True:
            values = await store.values(name)
            found = opened([new, *old], name, values)
            if found is None:
                if values and values[0].value is not None:
                    strange.append(name)
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
        raise WrongMasterKey(f"no master key opens any stored key, such as that of {likely}")
    return Rewrapped(changed, already, tuple(strange))


def opened(masters: Sequence[bytes], name: str, values: Sequence[Entry]) -> tuple[bytes, int, int] | None:
    """The newest value that a master key opens, as `unwrap`, and its revision; None where there is none, or the key was
    destroyed.
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
    """Drop all keys but the newest. Only after a pass of `rewrap` that had nothing to change."""
    files.put(path, _encoded(_decoded(path)[:1]))


def _encoded(keys: Sequence[bytes]) -> bytes:
    return b"".join(base64.b64encode(key) + b"\n" for key in keys)


def _decoded(path: Path) -> list[bytes]:
    try:
        keys = [base64.b64decode(text) for text in path.read_bytes().split()]
    except ValueError:
        keys = []
    if not keys or any(len(key) != 32 for key in keys):
        raise WrongMasterKey(f"{path} does not hold 32 bytes in base64 on each line")
    return keys
