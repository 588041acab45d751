"""Keys that are stored outside the log, so that sealed data in the log can be erased by destroying their key.

Each VM has a random 256-bit key, wrapped by the master key (AES-256-GCM), in a stream that is not part of the log. It
seals the VM's user-data, and the secrets in the VM's seed URLs are derived from it. Destroying the key is final: sealed
data is unreadable everywhere, also in replays and old backups of the log, and its secrets are never issued again.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nats.aio.client import Client

from domain.base import Sealed
from eventstore.log.jetstream import Conflict, Unavailable
from eventstore.vault.keystore import Entry, KeyStore
from eventstore.vault.masterkey import NONCE, Ring, WrongMasterKey
from runtime.tasks.backoff import Backoff

__all__ = ["Erased", "Erasure", "Vault", "VaultUnavailable", "WrongMasterKey"]

MOST_CACHED = 10_000
#: Seconds for which a process that creates no keys waits for one, and the seconds between its looks.
PATIENCE = 5.0
SOON = Backoff(first=0.002, last=0.1)


class Erased(Exception):
    """The key was destroyed; data that it sealed can never be read again."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """The place of a sealed secret whose key was destroyed. `size`: bytes of the secret."""

    key: str
    size: int

    def __str__(self) -> str:
        return f"the key of {self.key} was destroyed; nobody can read the {self.size} bytes that it sealed"


class VaultUnavailable(Exception):
    """The store of the keys does not answer now."""


class Vault:
    """The keys of VMs. Several processes may use it concurrently."""

    def __init__(self, store: KeyStore, master: Path | bytes, *, creates: bool = True) -> None:
        """`master`: the file of the master key, which may change at any time, or the key itself.

        `creates`: whether this process creates keys. One that may not store any on the bus waits until handlers have
        done it.
        """
        self._creates = creates
        self._store = store
        self._master = Ring(master)
        self._cache: dict[str, bytes] = {}

    @classmethod
    def of(cls, nc: Client, master_key_path: Path, *, creates: bool = True) -> "Vault":
        return cls(KeyStore(nc), master_key_path, creates=creates)

    async def prepare(self, vm: str) -> None:
        """Create the VM's key now, unless this process knows it, so that nobody waits for it later. Raises Erased,
        VaultUnavailable, WrongMasterKey.
        """
        if vm in self._cache:
            return
        try:
            key = await self._create(vm)
        except Unavailable as error:
            raise VaultUnavailable(f"the vault does not answer: {error}") from error
        if key is not None:
            self._keep(vm, key)

    async def seal(self, vm: str, secret: str | bytes) -> Sealed:
        """Encrypt with the VM's key, which is created if there is none. Raises Erased, VaultUnavailable."""
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
        """Decrypt a text. Raises Erased if the key was destroyed."""
        return (await self.unsealed(sealed)).decode()

    async def unsealed(self, sealed: Sealed) -> bytes:
        """Decrypt bytes. Raises Erased if the key was destroyed."""
        key = await self._key(sealed.key, make=False, fresh=True)
        nonce, text = base64.b64decode(sealed.nonce), base64.b64decode(sealed.ciphertext)
        return AESGCM(key).decrypt(nonce, text, sealed.key.encode())

    async def reveal(self, sealed: Sealed) -> bytes | Erasure:
        """The secret, or an Erasure if its key was destroyed. Raises VaultUnavailable and WrongMasterKey."""
        try:
            return await self.unsealed(sealed)
        except Erased:
            return Erasure(sealed.key, sealed.size)

    async def seed_secret(self, vm: str, boots: int) -> str:
        """The secret (32 URL-safe characters, 192 bits) of a VM's n-th boot. Raises Erased if the key was destroyed."""
        return _seed_secret(await self._key(vm, make=True, fresh=True, soon=True), vm, boots)

    async def seed_secrets(self, boots_of: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
        """The secrets of these boots of many VMs, by VM: it takes a third of the time of `seed_secret` for each.

        VMs are missing whose keys have to be looked at closely: `seed_secret` says why.
        """
        found: dict[str, list[str]] = {}
        for vm, value in (await self._store.values_of([*boots_of])).items():
            with contextlib.suppress(WrongMasterKey):
                key = self._master.unwrap(vm, value)
                found[vm] = [_seed_secret(key, vm, boots) for boots in boots_of[vm]]
        return found

    async def mac_key(self, name: str) -> bytes:
        """The key with this name for message authentication codes, created if there is none. Raises Erased."""
        key = await self._key(name, make=True)
        return hmac.digest(key, f"mac:{name}".encode(), hashlib.sha256)

    async def destroy(self, vm: str) -> None:
        """Destroy the VM's key for ever: its bytes are overwritten on the disks. Safe to repeat."""
        self._cache.pop(vm, None)
        try:
            await self._store.erase(vm)
        except Unavailable as error:
            raise VaultUnavailable(f"the vault does not answer: {error}") from error

    async def held(self) -> set[str]:
        """The ids of VMs of whose keys any bytes are stored."""
        try:
            return await self._store.names()
        except Unavailable as error:
            raise VaultUnavailable(f"the vault does not answer: {error}") from error

    async def _key(self, vm: str, *, make: bool, fresh: bool = False, soon: bool = False) -> bytes:
        """The VM's key; `make`: create it if there is none. `fresh`: read the store even if the key is in the cache,
        because it may have been destroyed. `soon`: together with the keys that are read at the same time.
        """
        if not fresh and vm in self._cache:
            return self._cache[vm]
        try:
            key = await self._stored(vm, soon=soon)
            if key is None and make:
                key = await (self._create(vm) if self._creates else self._created(vm))
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
        self._keep(vm, key)
        return key

    def _keep(self, vm: str, key: bytes) -> None:
        if len(self._cache) >= MOST_CACHED:
            self._cache.clear()
        self._cache[vm] = key

    async def _stored(self, vm: str, *, soon: bool = False) -> bytes | None:
        """The key, or None if there never was one. Raises Erased, WrongMasterKey."""
        entry = await (self._store.get_soon(vm) if soon else self._store.get(vm))
        if entry is None:
            return None
        try:
            return self._unwrap(vm, entry)
        except WrongMasterKey:
            for earlier in (await self._store.values(vm))[1:]:  # the newest message may be junk that somebody stored
                with contextlib.suppress(WrongMasterKey):
                    return self._unwrap(vm, earlier)
            raise

    def _unwrap(self, vm: str, entry: Entry) -> bytes:
        if entry.value is None:
            raise Erased(vm)
        return self._master.unwrap(vm, entry.value)

    async def _created(self, vm: str) -> bytes:
        """The key that handlers create soon. Raises Erased, WrongMasterKey, VaultUnavailable after PATIENCE seconds."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        for pause in SOON.pauses():
            if asyncio.get_running_loop().time() + pause > deadline:
                break
            await asyncio.sleep(pause)
            if (key := await self._stored(vm)) is not None:
                return key
        raise VaultUnavailable(f"handlers have not created the key of {vm} yet")

    async def _create(self, vm: str) -> bytes | None:
        """A new key, or the one that another process created first. Raises Erased."""
        key = secrets.token_bytes(32)
        try:
            await self._store.put(vm, self._master.wrap(vm, key), last=0)
        except Conflict:
            return await self._stored(vm)
        return key


def _seed_secret(key: bytes, vm: str, boots: int) -> str:
    mac = hmac.digest(key, f"seed:{vm}:{boots}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(mac[:24]).decode()
