"""The node of the platform's own host. It joins as other hosts do: `nebula up` issues a token for it, and uses it once.

The log knows its key from then on, so `nebula node revoke` ends it, as does another host that joins under its name. It
does not join again by itself then. Its daemon renews its credential. `nebula up` signs only what the daemon cannot
renew: a credential that has expired while the platform did not run, or that has permissions of an earlier version.
"""

import asyncio
import contextlib
import hashlib
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from cli.client import joining
from cli.client.client import Client, Document, path
from cli.client.errors import Refused
from cli.local.progress import say
from domain.enrollment import fingerprint_of
from node_daemon.membership.credentials import Files, Held
from runtime.bus.accounts import credentials
from runtime.bus.accounts.authority import ROLE_SECONDS, Authority
from runtime.bus.accounts.credentials import BadCredentials
from runtime.bus.accounts.table import A_NODE, Account
from runtime.local.child import ServerError
from runtime.node_keys import NodeKeys, give
from runtime.tasks.patience import CannotRun

#: Seconds between two looks whether the key was revoked.
LOOK_SECONDS = 1.0
OTHER_PLATFORM = (
    "the home {} is that of node {} of the platform {}: set another NEBULA_HOME, or remove {} if this host shall not "
    "be that node any more"
)
ENDED = (
    "node         {0} has no valid key: it was revoked, or another host joined as {0}. Its VMs go on running. To let "
    "this host join again: nebula node token {0}, then run here what it prints"
)


@dataclass
class LocalNode:
    """The node of this name in a home, with the authority of the bus of that home.

    `seconds`: for how long a credential is valid that is signed here.
    """

    home: Path
    name: str
    authority: Authority
    seconds: float = ROLE_SECONDS

    @property
    def files(self) -> Files:
        return Files(self.home)

    def prepare(self, keys: NodeKeys) -> None:
        """Prepare the files before the bus is started. Raises ServerError if the home joined another platform, OSError,
        CannotRun.
        """
        held = self.files.held()
        if held is not None and not held.own and self._account() != self.authority.public[Account.NODES]:
            raise ServerError(OTHER_PLATFORM.format(self.home, held.node, held.gateway, self.files.folder))
        for file in self.authority.folder.glob(f"{A_NODE}-*.creds"):  # of a version whose node did not join
            self.authority.end(file, Account.NODES)
        if held is not None and held.node == self.name:
            give(keys, self.name, self.files.node_key)

    def renew(self) -> None:
        """Sign the credential again if the daemon cannot renew it. Raises OSError, CannotRun."""
        held = self._valid()
        if held is None:
            return
        jwt_of_now = self.authority.up_to_date(self.files.creds, A_NODE, self.name)
        if jwt_of_now and not credentials.expired(credentials.read(self.files.creds)):
            return
        now = time.time()
        jwt = self.authority.node_credentials(self.name, held.public_key, int(now + self.seconds))
        self.files.sign(held.model_copy(update={"received_at": now, "seconds": self.seconds}), jwt)

    def has_key(self) -> bool:
        """Whether this host has a key for this platform's bus, valid or revoked. If it has none, it has to join."""
        held = self.files.held()
        ours = self._account() == self.authority.public[Account.NODES]
        return held is not None and held.node == self.name and ours

    def is_ended(self) -> bool:
        """Whether the key of this host was revoked."""
        held = self.files.held()
        return held is not None and held.node == self.name and self._is_revoked(held)

    def join(self, api: Client) -> bool:
        """Join with a new token; False if the name belongs to another host, or its key was revoked by an operator.

        Raises CliError, OSError, CannotRun.
        """
        enrollment = path("enrollments", self.name)
        try:
            if not self._may_join(api.get(enrollment)):
                return False
        except Refused as refusal:
            if refusal.status != 404:
                raise
        token = f"nbj_{self.name}_{secrets.token_urlsafe(32)}"
        body = {"digest": hashlib.sha256(token.encode()).hexdigest(), "minutes": 5}
        issued = api.send("POST", path("enrollments", self.name, "issue"), body)
        if not self._may_join(issued["enrollment"]):  # the read model was behind
            return False
        joining.exchange(self.home, api, token, own=True)
        return True

    async def watch(self, *, said: bool) -> None:
        """Say when the key of this host is revoked; with `said`, say so now. Never returns."""
        if said:
            say(ENDED.format(self.name))
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            before = said
            with contextlib.suppress(OSError, CannotRun):
                said = await asyncio.to_thread(self.is_ended)
            if said and not before:
                say(ENDED.format(self.name))

    def _may_join(self, enrollment: Document) -> bool:
        """Whether the name is free, or has a key of this host, such as one of a join that was cut off."""
        fingerprint, held = enrollment["fingerprint"], self.files.held()
        own = {fingerprint_of(key) for key in self.files.public_keys()}
        if held is not None and held.node == self.name and self._is_revoked(held):
            return False
        return fingerprint is None or (enrollment["revoked_at"] is None and fingerprint in own)

    def _valid(self) -> Held | None:
        held = self.files.held()
        if held is None or not self.has_key() or self._is_revoked(held):
            return None
        return held

    def _is_revoked(self, held: Held) -> bool:
        return held.public_key in self.authority.revoked().get(Account.NODES, {})

    def _account(self) -> str | None:
        """The account of the credential in the home; None if there is none."""
        try:
            return credentials.read(self.files.creds).issuer
        except (OSError, BadCredentials):
            return None
