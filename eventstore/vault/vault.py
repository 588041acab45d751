"""Keys that stand beside the log, so that what they sealed can be forgotten.

One random 256-bit key per VM, wrapped by the master key (AES-256-GCM), in a stream that is not part of the log. It
seals the VM's user-data and derives the secret of each boot's seed URL. Destroying the key is final: what it sealed is
unreadable everywhere, replays and old backups of the log included, and its secrets are never issued again.
"""

import base64
import contextlib
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nats.aio.client import Client

from domain.base import Sealed
from eventstore.log.jetstream import Conflict, Unavailable
from eventstore.vault.keystore import Entry, KeyStore
from eventstore.vault.masterkey import NONCE, Ring, WrongMasterKey

__all__ = ["Erased", "Erasure", "Vault", "VaultUnavailable", "WrongMasterKey"]

MOST_CACHED = 10_000


class Erased(Exception):
    """The key was destroyed; what it sealed cannot be read again."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What stands where a secret stood."""

    key: str
    size: int

    def __str__(self) -> str:
        return f"the key of {self.key} was destroyed; what it sealed ({self.size} bytes) cannot be read by anybody"


class VaultUnavailable(Exception):
    """The store of the keys cannot be reached now."""


class Vault:
    """Per-VM keys. Safe to use from several processes at once."""

    def __init__(self, store: KeyStore, master: Path | bytes) -> None:
        """`master` is the file with the master key, which may be exchanged meanwhile, or the key itself."""
        self._store = store
        self._master = Ring(master)
        self._cache: dict[str, bytes] = {}

    @classmethod
    def of(cls, nc: Client, master_key_path: Path) -> "Vault":
        return cls(KeyStore(nc), master_key_path)

    async def seal(self, vm: str, secret: str | bytes) -> Sealed:
        """Encrypt under the VM's key, which is made when there is none."""
        clear = secret.encode() if isinstance(secret, str) else secret
        nonce = secrets.token_bytes(NONCE)
        sealed = AESGCM(await self._key(vm, make=True)).encrypt(nonce, clear, vm.encode())
        return Sealed(
            key=vm,
            nonce=base64.b64encode(nonce).decode(),
            ciphertext=base64.b64encode(sealed).decode(),
            size=len(clear),
        )

    async def unseal(self, sealed: Sealed) -> str:
        """Decrypt what is text. Raises Erased when the key is gone."""
        return (await self.unsealed(sealed)).decode()

    async def unsealed(self, sealed: Sealed) -> bytes:
        """Decrypt. Raises Erased when the key is gone."""
        key = await self._key(sealed.key, make=False, fresh=True)
        nonce, text = base64.b64decode(sealed.nonce), base64.b64decode(sealed.ciphertext)
        return AESGCM(key).decrypt(nonce, text, sealed.key.encode())

    async def reveal(self, sealed: Sealed) -> bytes | Erasure:
        """For readers of the past: the secret, or that it is gone. Raises VaultUnavailable and WrongMasterKey."""
        try:
            return await self.unsealed(sealed)
        except Erased:
            return Erasure(sealed.key, sealed.size)

    async def seed_secret(self, vm: str, boots: int) -> str:
        """The secret (32 URL-safe characters, 192 bits) of a VM's n-th boot. Raises Erased once it was destroyed."""
        key = await self._key(vm, make=True, fresh=True)
        mac = hmac.new(key, f"seed:{vm}:{boots}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac[:24]).decode()

    async def mac_key(self, name: str) -> bytes:
        """A key of this name, made when there is none: to compute with, for ever. Raises Erased."""
        key = await self._key(name, make=True)
        return hmac.digest(key, f"mac:{name}".encode(), hashlib.sha256)

    async def destroy(self, vm: str) -> None:
        """Forget the VM's key, for good: its bytes are overwritten where they are stored. Safe to repeat."""
        self._cache.pop(vm, None)
        try:
            await self._store.erase(vm)
        except Unavailable as error:
            raise VaultUnavailable(f"the vault does not answer: {error}") from error

    async def held(self) -> set[str]:
        """The VMs of whose keys some bytes are stored."""
        try:
            return await self._store.names()
        except Unavailable as error:
            raise VaultUnavailable(f"the vault does not answer: {error}") from error

    async def _key(self, vm: str, *, make: bool, fresh: bool = False) -> bytes:
        """The VM's key. `fresh` asks the store even when the key is at hand (it may have been destroyed)."""
        if not fresh and vm in self._cache:
            return self._cache[vm]
        try:
            key = await self._stored(vm)
            if key is None and make:
                key = await self._made(vm)
        except Unavailable as error:
            if fresh and vm in self._cache:
                return self._cache[vm]
            raise VaultUnavailable(f"the vault does not answer: {error}") from error
        except Erased:
            self._cache.pop(vm, None)
            raise
        if key is None:
            self._cache.pop(vm, None)
            raise Erased(vm)
        if len(self._cache) >= MOST_CACHED:
            self._cache.clear()
        self._cache[vm] = key
        return key

    async def _stored(self, vm: str) -> bytes | None:
        """The key, or None when there never was one. Raises Erased, WrongMasterKey."""
        entry = await self._store.get(vm)
        if entry is None:
            return None
        try:
            return self._opened(vm, entry)
        except WrongMasterKey:
            for earlier in (await self._store.values(vm))[1:]:  # what stands behind it may be no key
                with contextlib.suppress(WrongMasterKey):
                    return self._opened(vm, earlier)
            raise

    def _opened(self, vm: str, entry: Entry) -> bytes:
        if entry.value is None:
            raise Erased(vm)
        return self._master.unwrap(vm, entry.value)

    async def _made(self, vm: str) -> bytes | None:
        """A new key, or the one that somebody else made first. Raises Erased."""
        key = secrets.token_bytes(32)
        try:
            await self._store.put(vm, self._master.wrap(vm, key), last=0)
        except Conflict:
            return await self._stored(vm)
        return key
