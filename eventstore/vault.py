"""Keys that stand beside the log, so that what they sealed can be forgotten.

One random 256-bit key per VM, wrapped by the master key (AES-256-GCM), in a key-value bucket that is not part of the
log. It seals the VM's user-data and derives the secret of each boot's seed URL. Destroying the key is final: what it
sealed is unreadable everywhere, replays and old backups of the log included, and its secrets are never issued again.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eventsourcing.persistence import OperationalError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import KeyDeletedError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError
from nats.js.kv import KeyValue

from domain.base import Sealed
from eventstore.masterkey import NONCE, Ring, WrongMasterKey
from runtime import subjects

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


class VaultUnavailable(OperationalError):
    """The bucket cannot be reached now."""


class Vault:
    """Per-VM keys. Safe to use from several processes at once."""

    def __init__(self, bucket: KeyValue, master: Path | bytes) -> None:
        """`master` is the file with the master key, which may be exchanged meanwhile, or the key itself."""
        self._bucket = bucket
        self._master = Ring(master)
        self._cache: dict[str, bytes] = {}

    @classmethod
    async def open(cls, js: JetStreamContext, master_key_path: Path) -> "Vault":
        return cls(await js.key_value(subjects.KEYS), master_key_path)

    async def seal(self, vm: str, text: str) -> Sealed:
        """Encrypt under the VM's key, which is made when there is none."""
        clear = text.encode()
        nonce = secrets.token_bytes(NONCE)
        sealed = AESGCM(await self._key(vm, make=True)).encrypt(nonce, clear, vm.encode())
        return Sealed(
            key=vm,
            nonce=base64.b64encode(nonce).decode(),
            ciphertext=base64.b64encode(sealed).decode(),
            size=len(clear),
        )

    async def unseal(self, sealed: Sealed) -> str:
        """Decrypt. Raises Erased when the key is gone."""
        key = await self._key(sealed.key, make=False, fresh=True)
        nonce, text = base64.b64decode(sealed.nonce), base64.b64decode(sealed.ciphertext)
        return AESGCM(key).decrypt(nonce, text, sealed.key.encode()).decode()

    async def reveal(self, sealed: Sealed) -> str | Erasure:
        """For readers of the past: the text, or that it is gone. Raises VaultUnavailable and WrongMasterKey."""
        try:
            return await self.unseal(sealed)
        except Erased:
            return Erasure(sealed.key, sealed.size)

    async def seed_secret(self, vm: str, boots: int) -> str:
        """The secret (32 URL-safe characters, 192 bits) of a VM's n-th boot. Raises Erased once it was destroyed."""
        key = await self._key(vm, make=True, fresh=True)
        mac = hmac.new(key, f"seed:{vm}:{boots}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac[:24]).decode()

    async def destroy(self, vm: str) -> None:
        """Forget the VM's key, for good. Doing it twice is doing it once."""
        self._cache.pop(vm, None)
        try:
            await self._bucket.purge(vm)
        except (NatsError, OSError, TimeoutError) as error:
            raise VaultUnavailable(f"the vault does not answer: {error!r}") from error

    async def held(self) -> set[str]:
        """The VMs whose keys exist."""
        try:
            return set(await self._bucket.keys())
        except NoKeysError:
            return set()
        except (NatsError, OSError, TimeoutError) as error:
            raise VaultUnavailable(f"the vault does not answer: {error!r}") from error

    async def _key(self, vm: str, *, make: bool, fresh: bool = False) -> bytes:
        """The VM's key. `fresh` asks the bucket even when the key is at hand (it may have been destroyed)."""
        if not fresh and vm in self._cache:
            return self._cache[vm]
        try:
            key = await self._stored(vm)
            if key is None:
                self._cache.pop(vm, None)
                if not make:
                    raise Erased(vm)
                key = await self._made(vm)
        except KeyDeletedError as error:
            self._cache.pop(vm, None)
            raise Erased(vm) from error
        except (NatsError, OSError, TimeoutError) as error:
            if fresh and vm in self._cache:
                return self._cache[vm]
            raise VaultUnavailable(f"the vault does not answer: {error!r}") from error
        if len(self._cache) >= MOST_CACHED:
            self._cache.clear()
        self._cache[vm] = key
        return key

    async def _stored(self, vm: str) -> bytes | None:
        try:
            entry = await self._bucket.get(vm)
        except KeyDeletedError:
            raise
        except KeyNotFoundError:
            return None
        return self._master.unwrap(vm, entry.value or b"")

    async def _made(self, vm: str) -> bytes:
        key = secrets.token_bytes(32)
        try:
            await self._bucket.update(vm, self._master.wrap(vm, key), last=0)
        except KeyWrongLastSequenceError:
            stored = await self._stored(vm)
            if stored is None:
                raise Erased(vm) from None
            return stored
        return key
