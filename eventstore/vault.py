"""Keys that stand beside the log, so that what they sealed can be forgotten.

One random 256-bit key per VM, wrapped by the master key (AES-256-GCM), in a key-value bucket that is not part of the
log. It seals the VM's user-data and derives the secret of each boot's seed URL. Destroying the key is final: what it
sealed is unreadable everywhere, replays and old backups of the log included, and its secrets are never issued again.
"""

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eventsourcing.persistence import OperationalError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import KeyDeletedError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError
from nats.js.kv import KeyValue

from domain.base import Sealed
from runtime import subjects

NONCE = 12
MOST_CACHED = 10_000


class Erased(Exception):
    """The key was destroyed; what it sealed cannot be read again."""


class VaultUnavailable(OperationalError):
    """The bucket cannot be reached now."""


class WrongMasterKey(Exception):
    """A wrapped key does not open: the master key file is not the one it was wrapped with."""


def master_key(path: Path) -> bytes:
    """The master key from its file (base64 of 32 bytes), made with mode 0600 at first use."""
    try:
        return _decoded(path)
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(base64.b64encode(secrets.token_bytes(32)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(fresh)  # fails when another process was first: then its key counts
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return _decoded(path)


def _decoded(path: Path) -> bytes:
    key = base64.b64decode(path.read_bytes())
    if len(key) != 32:
        raise WrongMasterKey(f"{path} does not hold 32 bytes in base64")
    return key


class Vault:
    """Per-VM keys. Safe to use from several processes at once."""

    def __init__(self, bucket: KeyValue, master: bytes) -> None:
        self._bucket = bucket
        self._master = AESGCM(master)
        self._cache: dict[str, bytes] = {}

    @classmethod
    async def open(cls, js: JetStreamContext, master_key_path: Path) -> "Vault":
        return cls(await js.key_value(subjects.KEYS), master_key(master_key_path))

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

    async def seed_secret(self, vm: str, boots: int) -> str:
        """The secret (32 URL-safe characters, 192 bits) of a VM's n-th boot. Raises Erased once it was destroyed."""
        key = await self._key(vm, make=True)
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
        wrapped = entry.value or b""
        try:
            return self._master.decrypt(wrapped[:NONCE], wrapped[NONCE:], vm.encode())
        except InvalidTag as error:
            raise WrongMasterKey("the master key is not the one the keys were wrapped with") from error

    async def _made(self, vm: str) -> bytes:
        key = secrets.token_bytes(32)
        nonce = secrets.token_bytes(NONCE)
        try:
            await self._bucket.update(vm, nonce + self._master.encrypt(nonce, key, vm.encode()), last=0)
        except KeyWrongLastSequenceError:
            stored = await self._stored(vm)
            if stored is None:
                raise Erased(vm) from None
            return stored
        return key
