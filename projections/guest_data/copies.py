"""Sealed copies of what guests were told, for a guest that boots while nobody can say.

Each is encrypted (AES-256-GCM) with a key that is derived from the secret of the guest's URL, and named by the secret's
SHA-256. Neither secret nor key is kept: only who comes with the secret can read its copy. There is a bounded number of
copies, of bounded size in all, none older than `OLDEST`. They are in memory, and in a folder, so that a new process has
them as well; where the folder cannot be used they are in memory alone.
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

#: Copies, and bytes of all of them. The one that was confirmed longest ago goes first.
MOST, MOST_BYTES = 10_000, 128 * 1024**2
#: Seconds after the last answer that confirmed it; and how often that is noted in its file.
OLDEST, NOTED = 30 * 86400.0, 3600.0

NONCE = 12
_NAME = re.compile(SHA256)


def name_of(secret: str) -> str:
    """How the copy of a secret is called; the projections keep the same digest."""
    return hashlib.sha256(secret.encode()).hexdigest()


def key_of(secret: str) -> bytes:
    """The key that seals it. Secrets have 192 random bits, so one MAC is enough."""
    return hmac.digest(secret.encode(), b"nebula: sealed copy of a guest's seed", hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Copy:
    """`confirmed`: when the projections said so last, by the clock of this host."""

    sealed: bytes
    confirmed: float


class Copies:
    """All copies. `folder` is None where they are kept in memory alone."""

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
        """What was sealed for this secret; None where there is nothing, or it is too old."""
        name = name_of(secret)
        copy = self._copies.get(name)
        if copy is None:
            return None
        if time.time() - copy.confirmed > OLDEST:
            self.remove([name])
            return None
        return self._opened(name, secret, copy)

    def put(self, secret: str, clear: bytes) -> None:
        """Seal this for the secret. What is the same already is confirmed."""
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
        """Forget these: what they say counts no more."""
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
        """Forget what nobody has confirmed for too long."""
        now = time.time()
        self.remove([name for name, copy in self._copies.items() if now - copy.confirmed > OLDEST])

    def _opened(self, name: str, secret: str, copy: Copy) -> bytes | None:
        nonce, text = copy.sealed[:NONCE], copy.sealed[NONCE:]
        try:
            return AESGCM(key_of(secret)).decrypt(nonce, text, name.encode())
        except (InvalidTag, ValueError):  # half a file, or somebody wrote to it
            return None

    def _keep(self, name: str, copy: Copy) -> None:
        before = self._copies.pop(name, None)
        self._bytes += len(copy.sealed) - (len(before.sealed) if before is not None else 0)
        self._copies[name] = copy

    def _bound(self) -> None:
        while self._copies and (len(self._copies) > self._most or self._bytes > self._most_bytes):
            self.remove([next(iter(self._copies))])

    def _read(self, folder: Path) -> None:
        """The copies of an earlier process. What is not one of ours, or not whole, is removed."""
        found: list[tuple[float, str, bytes]] = []
        try:
            for file in folder.iterdir():
                try:
                    if _NAME.fullmatch(file.name) and file.stat().st_size <= self._most_bytes:
                        found.append((file.stat().st_mtime, file.name, file.read_bytes()))
                        continue
                except OSError as error:  # of the user that we were before
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
        """Whole or not at all, but for a power failure: then it does not open, and is none."""
        if self._folder is None:
            return
        file = self._folder / name
        try:
            put(file, sealed, durable=False)
            os.utime(file, (confirmed, confirmed))  # also of a file that has this content already
        except OSError as error:
            log.warning("a copy is kept in memory alone", error=str(error))

    def _give_up(self, error: OSError) -> None:
        log.warning("copies are kept in memory alone", folder=str(self._folder), error=str(error))
        self._folder = None
