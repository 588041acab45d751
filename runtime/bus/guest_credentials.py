"""The credential of guest-data on a host that joined as a node. The node stores and renews it; guest-data uses it.

    <home>/guest-credentials/     0711, of the node's user: nobody else replaces a file
        bus.json                  where the bus is
        bus.creds                 the JWT and the seed of a key of its own, as NATS tools write them
        ca.pem                    the authority of the bus

The files have mode 0600. They belong to the user that guest-data becomes, if root has joined.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from runtime import unprivileged
from runtime.bus.accounts import credentials
from runtime.bus.credential_folder import CredentialFolder, read
from runtime.files.files import put_in_place
from runtime.files.private import PASSABLE, passable
from runtime.settings import GuestDataSettings

#: The user that guest-data becomes if root started it.
USER = "nebula-guest-data"


class Place(BaseModel):
    """Where the bus is. `encrypted`: `ca.pem` is its authority."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    nats_url: str
    encrypted: bool = False


@dataclass(frozen=True)
class GuestFiles:
    """The folder of guest-data's credential in a home."""

    home: Path

    @property
    def paths(self) -> CredentialFolder:
        return CredentialFolder(self.home / "guest-credentials")

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
    def place(self) -> Path:
        return self.folder / "bus.json"

    def store(self, jwt: str, seed: str, nats_url: str, authority: str) -> None:
        """Store a credential, `bus.json` last. Raises OSError, CannotRun."""
        owner = unprivileged.account(USER)
        passable(self.folder)
        self.folder.chmod(PASSABLE)
        _give(self.creds, credentials.text(jwt, seed.encode()), owner)
        if authority:
            _give(self.authority, authority, owner)
        place = Place(nats_url=nats_url, encrypted=bool(authority))
        _give(self.place, place.model_dump_json(indent=2) + "\n", owner)

    def remove(self) -> None:
        """Remove a credential of an earlier join. Raises OSError."""
        for path in (self.place, self.creds, self.authority):
            path.unlink(missing_ok=True)

    def found(self) -> Place | None:
        """None if this host has no credential for guest-data. Raises CannotRun if the file is damaged."""
        return read(self.place, Place)


def applied(settings: GuestDataSettings) -> GuestDataSettings:
    """The settings with what this host got when it joined; settings of the environment take precedence.

    Raises CannotRun.
    """
    files, given = GuestFiles(settings.home), settings.model_fields_set
    if {"nats_creds", "nats_user"} & given:
        return settings
    place = files.found()
    if place is None:
        return settings
    update = files.paths.bus(given, place.nats_url, encrypted=place.encrypted)
    return settings.model_copy(update={**update, "nats_creds": files.creds})


def give(home: Path, owner: unprivileged.Account) -> None:
    """Give the files to guest-data's user: an earlier version, or an earlier start, had another one. Raises OSError."""
    files = GuestFiles(home)
    for path in (files.creds, files.authority, files.place):
        if path.exists():
            os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def _give(path: Path, content: str, owner: unprivileged.Account | None) -> None:
    """Replace a file in one step; it has its owner from the beginning."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            if owner is not None:
                os.fchown(descriptor, owner.uid, owner.gid)
        put_in_place(part, path, 0o600)
    finally:
        part.unlink(missing_ok=True)
