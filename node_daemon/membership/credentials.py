"""The credential of this host: the keys that it has made itself, and what it got for them when it joined.

    <home>/node/credentials/      0700
        node.json                 the node's name, the bus, how long the credential is valid
        bus.creds                 the JWT and the seed of the key, as NATS tools write them (0600)
        ca.pem                    the authority of the bus
        node.key                  the key that proves who wrote a document for this node, or a report of it (0600)
        guest.seed                the seed of guest-data's key (0600)
        pending.json              the keys of a join that is not finished

What guest-data reads is in a folder of its own (`runtime/bus/guest_credentials.py`).

The key is made here and never leaves this host. It is stored before the token is sent: if the answer is lost, the same
command can be repeated.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import nkeys
from pydantic import BaseModel, ConfigDict, ValidationError

from domain.contract.joining import Joined
from runtime import possession
from runtime.bus.accounts import credentials
from runtime.bus.credential_folder import CredentialFolder, read
from runtime.bus.guest_credentials import GuestFiles
from runtime.files.files import put
from runtime.files.private import passable
from runtime.sealed import unseal
from runtime.settings import NodeSettings
from runtime.tasks.patience import CannotRun


class Held(BaseModel):
    """What this host has got. Times are in seconds since 1970 by this host's clock.

    `signed`: there is a JWT. `keyed`: there is a key of the node. `own`: the platform is that of the same home.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    node: str
    gateway: str
    nats_url: str
    public_key: str
    received_at: float
    seconds: float
    signed: bool = False
    encrypted: bool = False
    keyed: bool = False
    own: bool = False


class Pending(BaseModel):
    """The seeds of the keys that were sent with a token, of which `digest` is the SHA-256."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    digest: str
    seed: str
    guest: str = ""


@dataclass(frozen=True)
class Files:
    """The folder of the credential in a home."""

    home: Path

    @property
    def paths(self) -> CredentialFolder:
        return CredentialFolder(self.home / "node" / "credentials")

    @property
    def folder(self) -> Path:
        return self.paths.folder

    @property
    def creds(self) -> Path:
        return self.paths.creds

    @property
    def authority(self) -> Path:
        return self.paths.authority

    @property
    def node_key(self) -> Path:
        return self.folder / "node.key"

    def make(self) -> None:
        """Make the folder. Raises OSError."""
        passable(self.folder.parent)
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def held(self) -> Held | None:
        """What this host has got; None if it has not joined. Raises CannotRun if the file is damaged."""
        return read(self.folder / "node.json", Held)

    def pending(self, digest: str) -> Pending:
        """The seeds of the keys for a token; made and stored at the first call. Raises OSError."""
        file = self.folder / "pending.json"
        try:
            found = Pending.model_validate_json(file.read_bytes())
            if found.digest == digest:
                return found
        except (FileNotFoundError, ValidationError):
            pass
        self.make()
        made = Pending(digest=digest, seed=new_seed(), guest=new_seed())
        put(file, made.model_dump_json())
        return made

    def store(
        self,
        joined: Joined,
        seed: str,
        gateway: str,
        nats_url: str,
        *,
        guest: str = "",
        keep_key: bool = False,
        own: bool = False,
    ) -> Held:
        """Store an answer; `node.json` is written last. `guest`: the seed of guest-data's key. `keep_key`: do not store
        the node key of the answer. `own`: as in `Held`.

        Raises OSError, CannotRun; ValueError if its node key cannot be opened.
        """
        self.make()
        key = unseal(seed, joined.node_key) if joined.node_key and not keep_key else None
        held = Held(
            node=joined.node,
            gateway=gateway,
            nats_url=nats_url,
            public_key=public(seed),
            received_at=time.time(),
            seconds=max(1, joined.expires_at - joined.now),
            signed=bool(joined.credential),
            encrypted=bool(joined.nats_ca),
            keyed=key is not None or keep_key,
            own=own,
        )
        if joined.credential:
            put(self.creds, credentials.text(joined.credential, seed.encode()))
        if joined.nats_ca:
            put(self.authority, joined.nats_ca)
        if key is not None:
            put(self.node_key, key.hex() + "\n")
        put(self.folder / "seed", seed)
        self._store_guest(joined, guest, nats_url, keep=keep_key)
        put(self.folder / "node.json", held.model_dump_json(indent=2) + "\n")
        (self.folder / "pending.json").unlink(missing_ok=True)
        return held

    def sign(self, held: Held, jwt: str) -> None:
        """Replace the JWT for the key that this host has. Raises OSError."""
        put(self.creds, credentials.text(jwt, self.seed().encode()))
        put(self.folder / "node.json", held.model_dump_json(indent=2) + "\n")

    def public_keys(self) -> list[str]:
        """The public keys that this host has made: of the credential, and of a join that is not finished."""
        held = self.held()
        found = [held.public_key] if held is not None else []
        with contextlib.suppress(FileNotFoundError, ValidationError):
            found.append(public(Pending.model_validate_json((self.folder / "pending.json").read_bytes()).seed))
        return found

    def _store_guest(self, joined: Joined, seed: str, nats_url: str, *, keep: bool) -> None:
        files = GuestFiles(self.home)
        if joined.guest_credential and seed:
            put(self.folder / "guest.seed", seed)
            files.store(joined.guest_credential, seed, nats_url, joined.nats_ca)
        elif not keep:  # of an earlier join
            files.remove()
            (self.folder / "guest.seed").unlink(missing_ok=True)

    def guest_seed(self) -> str:
        """The seed of guest-data's key; empty if this host joined without one. Raises OSError."""
        try:
            return (self.folder / "guest.seed").read_text().strip()
        except FileNotFoundError:
            return ""

    def seed(self) -> str:
        """The seed of the node's key. Raises OSError."""
        return (self.folder / "seed").read_text().strip()


def new_seed() -> str:
    """The seed of a new key."""
    found: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return found.decode()


def public(seed: str) -> str:
    """The public key of a seed."""
    found: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    return found.decode()


def proven_keys(node: str, digest: str, seed: str, guest: str = "") -> dict[str, str]:
    """The public keys of a join, with the proofs that this host has them. `digest`: the SHA-256 of the token.

    `guest`: the seed of guest-data's key; empty if there is none.
    """
    keys = {"public_key": public(seed)} | ({"guest_key": public(guest)} if guest else {})
    text = possession.text(node, digest, keys["public_key"], keys.get("guest_key"))
    proofs = {"proof": possession.proof(seed, text)} | ({"guest_proof": possession.proof(guest, text)} if guest else {})
    return keys | proofs


def applied(settings: NodeSettings) -> NodeSettings:
    """The settings with what this host got when it joined; settings of the environment take precedence.

    Raises CannotRun if NEBULA_NODE is another node.
    """
    files, given = Files(settings.home), settings.model_fields_set
    held = files.held()
    if held is None:
        return settings
    if "node" in given and settings.node != held.node:
        raise CannotRun(
            f"this host joined as node {held.node}, and NEBULA_NODE is {settings.node}: unset it, or join as "
            f"{settings.node} (nebula node token {settings.node})"
        )
    update = files.paths.bus(given, held.nats_url, encrypted=held.encrypted)
    update["node"] = held.node
    if held.signed and "nats_creds" not in given and "nats_creds" in type(settings).model_fields:
        update["nats_creds"] = files.creds
    if held.keyed and "node_key_file" not in given and "node_key_file" in type(settings).model_fields:
        update["node_key_file"] = files.node_key
    return settings.model_copy(update=update)
