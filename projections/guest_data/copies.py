"""Sealed copies of the answers to guests, for a guest that boots while the projections do not answer.

Each copy is encrypted (AES-256-GCM) with a key that is derived from the secret of the guest's URL, and named by the
secret's SHA-256. Neither secret nor key is kept: a copy can be read only with the secret. The number of copies, their
total size and their age (`OLDEST`) are limited. They are in memory, and in a folder, so that the next process has them
too. If the folder cannot be used, they are only in memory.
"""

import hashlib
import hmac
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain.patterns import SHA256
from runtime import logs
from runtime.files.files import put

log = logs.get(__name__)

#: Maximum number of copies, and of bytes in all. The copy that was confirmed longest ago is removed first.
MOST, MOST_BYTES = 10_000, 128 * 1024**2
#: Maximum age: seconds after the last answer that confirmed a copy; and seconds between two updates of a file's time.
OLDEST, NOTED = 30 * 86400.0, 3600.0

NONCE = 12
_NAME = re.compile(SHA256)


def name_of(secret: str) -> str:
    """The name of the copy of a secret; the projections store the same digest."""
    return hashlib.sha256(secret.encode()).hexdigest()


def key_of(secret: str) -> bytes:
    """The key that encrypts the copy. Secrets have 192 random bits, so one MAC is enough."""
    return hmac.digest(secret.encode(), b"nebula: sealed copy of a guest's seed", hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Copy:
    """`confirmed`: the time of the last answer with this content, by the clock of this host."""

    sealed: bytes
    confirmed: float


class Copies:
    """All copies. `folder` is None if they are only in memory."""

    def __init__(self, folder: Path | None, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._copies: OrderedDict[str, Copy] = OrderedDict()
        if folder is not None:
            self._read(folder)

    def __len__(self) -> int:
        return len(self._copies)

    @property
    def names(self) -> list[str]:
        return list(self._copies)

    def holds(self, name: str) -> bool:
        return name in self._copies

    def get(self, secret: str) -> bytes | None:
        """The content of the copy for this secret; None if there is no copy, or it is too old."""
        name = name_of(secret)
        copy = self._copies.get(name)
        if copy is None:
            return None
        if time.time() - copy.confirmed > OLDEST:
            self.remove([name])
            return None
        return self._opened(name, secret, copy)

    def put(self, secret: str, clear: bytes) -> None:
        """Store this content for the secret. An existing copy with the same content is confirmed."""
        name, now = name_of(secret), time.time()
        before = self._copies.get(name)
        if before is not None and self._opened(name, secret, before) == clear:
            sealed, noted = before.sealed, now - before.confirmed < NOTED
        else:
            nonce = secrets.token_bytes(NONCE)
            sealed, noted = nonce + AESGCM(key_of(secret)).encrypt(nonce, clear, name.encode()), False
        if noted:
            self._copies.move_to_end(name)
            return
        self._keep(name, Copy(sealed, now))
        self._write(name, sealed, now)
        self._bound()

    def remove(self, names: Iterable[str]) -> None:
        """Remove these copies."""
        for name in names:
            copy = self._copies.pop(name, None)
            if copy is not None:
                self._bytes -= len(copy.sealed)
            if self._folder is not None:
                try:
                    (self._folder / name).unlink(missing_ok=True)
                except OSError as error:
                    log.warning("a copy cannot be removed", file=name, error=str(error))

    def remove_old(self) -> None:
        """Remove copies that were not confirmed for OLDEST seconds."""
        now = time.time()
        self.remove([name for name, copy in self._copies.items() if now - copy.confirmed > OLDEST])

    def _opened(self, name: str, secret: str, copy: Copy) -> bytes | None:
        nonce, text = copy.sealed[:NONCE], copy.sealed[NONCE:]
        try:
            return AESGCM(key_of(secret)).decrypt(nonce, text, name.encode())
        except (InvalidTag, ValueError):  # an incomplete file, or somebody changed it
            return None

    def _keep(self, name: str, copy: Copy) -> None:
        before = self._copies.pop(name, None)
        self._bytes += len(copy.sealed) - (len(before.sealed) if before is not None else 0)
        self._copies[name] = copy

    def _bound(self) -> None:
        while self._copies and (len(self._copies) > self._most or self._bytes > self._most_bytes):
            self.remove([next(iter(self._copies))])

    def _read(self, folder: Path) -> None:
        """Read the copies of an earlier process. Other files are removed."""
        found: list[tuple[float, str, bytes]] = []
        try:
            for file in folder.iterdir():
                try:
                    if _NAME.fullmatch(file.name) and file.stat().st_size <= self._most_bytes:
                        found.append((file.stat().st_mtime, file.name, file.read_bytes()))
                        continue
                except OSError as error:  # it belongs to the user of an earlier process
                    log.warning("a copy cannot be read", file=file.name, error=str(error))
                file.unlink(missing_ok=True)
        except OSError as error:
            self._give_up(error)
            return
        now = time.time()
        for confirmed, name, sealed in sorted(found):
            self._keep(name, Copy(sealed, min(confirmed, now)))
        self.remove_old()
        self._bound()

    def _write(self, name: str, sealed: bytes, confirmed: float) -> None:
        """Write a copy completely or not at all. A power failure may leave a part, which cannot be opened."""
        if self._folder is None:
            return
        file = self._folder / name
        try:
            put(file, sealed, durable=False)
            os.utime(file, (confirmed, confirmed))  # also if the file already has this content
        except OSError as error:
            log.warning("a copy is kept only in memory", error=str(error))

    def _give_up(self, error: OSError) -> None:
        log.warning("copies are kept only in memory", folder=str(self._folder), error=str(error))
        self._folder = None
