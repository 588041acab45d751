"""The keys of the bus, kept in `<home>/bus`, and the credentials made with them.

    bus/keys/             seeds: the operator's, each account's, and the one that signs credentials of each account
    bus/<role>.creds      the credential of a role (0600)
    bus/revoked.json      public keys of revoked credentials, with the second up to which they are revoked
    bus/resolver/         the JWTs of the accounts, which the server reads and replaces
    bus/nats.conf         the configuration of the server

Keys of the operator sign accounts, so whoever has them may do everything. No role has them: only the process that
starts the servers, or an operator.
"""

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nats.aio.client import Client

from runtime.bus.accounts import claims, credentials
from runtime.bus.accounts.jwt import claims as said
from runtime.bus.accounts.keys import Key, Owner, check_user, kept, new
from runtime.bus.accounts.table import A_NODE, GUEST_DATA, ROLES, SIMULATION, Account
from runtime.files.files import put
from runtime.files.lock import lock
from runtime.files.private import PASSABLE, passable

#: Seconds for which the credential of a role is valid, and from how many left on a new one is made.
ROLE_SECONDS, RENEW_SECONDS = 30 * 24 * 3600, 10 * 24 * 3600
#: Roles with one credential, whose file has their name. Nodes have one each. That of simulated nodes may speak for any
#: node: it is made only where there are some.
WITH_FILE = tuple(name for name in ROLES if name not in (A_NODE, SIMULATION))
PUSH = "$SYS.REQ.CLAIMS.UPDATE"
_PUSH_SECONDS = 5.0


class NotPushed(Exception):
    """The server did not take a new JWT of an account. The change is in the files, and is used at its next start."""


@dataclass(frozen=True)
class NodeSigner:
    """Makes credentials of nodes and of their guest-data: its keys sign users of NODES and GUESTS.

    `guests`, `guests_account`: None for a file of an earlier version, which has no key of GUESTS.
    """

    key: Key
    account: str
    guests: Key | None = None
    guests_account: str = ""

    def credentials(self, node: str, public_key: str, expires: int) -> str:
        """The JWT for a node that has made its key itself. `expires`: in seconds since 1970.

        Raises WrongKey, ValueError if the name cannot be a token of a subject.
        """
        role = ROLES[A_NODE]
        return claims.user(role, check_user(public_key), self.account, self.key, expires=expires, node=node)

    def guest_credentials(self, node: str, public_key: str, expires: int) -> str:
        """The JWT for the guest-data of a node, which has inboxes of its own; empty without a key of GUESTS.

        Raises WrongKey, ValueError if the name cannot be a token of a subject.
        """
        if self.guests is None:
            return ""
        role, public = ROLES[GUEST_DATA], check_user(public_key)
        return claims.user(role, public, self.guests_account, self.guests, expires=expires, node=node)


class Authority:
    """The keys in one home. They are made at first use."""

    def __init__(self, home: Path) -> None:
        """Raises OSError, WrongKey."""
        self.folder = home / "bus"
        keys = self.folder / "keys"
        passable(self.folder)
        self.folder.chmod(PASSABLE)  # a role of another user gets the path of its own file
        for folder in (keys, self.resolver):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._operator = kept(keys / "operator.seed", Owner.OPERATOR)
        self._accounts = {which: kept(keys / f"{which}.seed", Owner.ACCOUNT) for which in Account}
        self._signers = {which: kept(keys / f"{which}.signing.seed", Owner.ACCOUNT) for which in Account}

    @property
    def resolver(self) -> Path:
        return self.folder / "resolver"

    @property
    def public(self) -> Mapping[Account, str]:
        """The public keys of the accounts."""
        return {which: key.public for which, key in self._accounts.items()}

    @property
    def signer_file(self) -> Path:
        """The file with what signs credentials of nodes, a line each: seed and account of NODES, then of GUESTS."""
        return self.folder / "node-signer"

    def file(self, role: str) -> Path:
        """The file with the credential of a role."""
        return self.folder / f"{role}.creds"

    def account(self, which: Account) -> str:
        """The JWT of an account, with all revocations."""
        signer = self._signers[which].public
        return claims.account(which, self.public, signer, self.revoked().get(which, {}), self._operator)

    def node_signer(self) -> NodeSigner:
        nodes, guests = Account.NODES, Account.GUESTS
        return NodeSigner(self._signers[nodes], self.public[nodes], self._signers[guests], self.public[guests])

    def node_credentials(self, node: str, public_key: str, expires: int) -> str:
        """As `NodeSigner.credentials`."""
        return self.node_signer().credentials(node, public_key, expires)

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self) -> None:
        """Write what the server reads at its start, and the credentials of all roles. Repeatable. Raises OSError."""
        for role in WITH_FILE:
            self.renew(role)
        for which in Account:
            put(self.resolver / f"{self.public[which]}.jwt", self.account(which))
        accounts = (Account.NODES, Account.GUESTS)
        lines = [f"{self._signers[which].seed.decode()}\n{self.public[which]}\n" for which in accounts]
        put(self.signer_file, "".join(lines))

    def renew(self, role: str, node: str | None = None, *, seconds: int = ROLE_SECONDS) -> bool:
        """Make the credential of a role, if there is none, or if it expires soon or is revoked; with a node's name,
        that of a node. One that an earlier version made in another account is revoked there. Returns whether it was
        made. Raises OSError.
        """
        file = self.file(role if node is None else f"{role}-{node}")
        key = new(Owner.USER)
        account = ROLES[role].account
        try:
            found = credentials.read(file)
            left = (found.expires or 0) - time.time()
            if found.account.upper() not in ("", account):
                self.revoke(found.public, Account(found.account.upper()))
            revoked = found.public in self.revoked().get(account, {})
            if left > RENEW_SECONDS and not revoked and self.up_to_date(file, role, node):
                return False
            if not revoked:
                key = credentials.parts(file)[1]
        except (FileNotFoundError, credentials.BadCredentials):
            pass
        credentials.write(file, self._user(role, node, key, int(time.time()) + seconds), key)
        return True

    def _user(self, role: str, node: str | None, key: Key, expires: int) -> str:
        which = ROLES[role].account
        return claims.user(
            ROLES[role], key.public, self.public[which], self._signers[which], expires=expires, node=node
        )

    def up_to_date(self, file: Path, role: str, node: str | None) -> bool:
        """Whether the credential in a file has the permissions that the table gives now, signed by the key of now.

        Raises OSError, BadCredentials.
        """
        jwt, key = credentials.parts(file)
        found, wanted = said(jwt), said(self._user(role, node, key, 0))
        return all(found.get(name) == wanted.get(name) for name in ("nats", "iss", "sub"))

    def configuration(self, base: Path) -> Path:
        """Write the configuration of the server: `base` with the accounts. Returns its file. Raises OSError."""
        file = self.folder / "nats.conf"
        put(file, self.configured(base, self.resolver))
        return file

    def configured(self, base: Path | str, resolver: Path, *, preload: bool = False) -> str:
        """The configuration of a server that keeps the JWTs of the accounts in `resolver`.

        `base`: the configuration without accounts, or its file. `preload`: the configuration has these JWTs, for a
        server whose folder nobody else writes to; it keeps those that are newer. Raises OSError.
        """
        system = self.public[Account.SYS]
        lines = [
            base if isinstance(base, str) else base.read_text(),
            "# The accounts: see docs/bus-access.md. Nobody connects without a credential.",
            "max_control_line: 32KB  # the handlers' JWT lists many subjects",
            f"operator: {claims.operator(self._operator, system)}",
            f"system_account: {system}",
            "resolver: {",
            "  type: full",
            f"  dir: {json.dumps(str(resolver))}",
            "  allow_delete: false",
            '  interval: "2m"',
            "}",
        ]
        if preload:
            accounts = [f"  {self.public[which]}: {self.account(which)}" for which in Account]
            lines += ["resolver_preload: {", *accounts, "}"]
        return "\n".join(lines) + "\n"

    # ── revocation ──────────────────────────────────────────────────────────────────────────────────────────────

    def revoked(self) -> dict[Account, dict[str, int]]:
        """Public keys of revoked credentials by account, with the second up to which their JWTs are revoked."""
        try:
            found = json.loads((self.folder / "revoked.json").read_text())
        except FileNotFoundError:
            return {}
        return {Account(name): {str(key): int(at) for key, at in keys.items()} for name, keys in found.items()}

    def revoke(self, public_key: str, which: Account = Account.NODES) -> None:
        """Write down that all JWTs of this key up to now are worth nothing. `push` tells the servers.

        Raises OSError, WrongKey.
        """
        check_user(public_key)
        with lock(self.folder / "revoked.lock", wait=True):
            found = self.revoked()
            found.setdefault(which, {})[public_key] = int(time.time())
            put(self.folder / "revoked.json", json.dumps(found))

    def end(self, file: Path, which: Account) -> None:
        """Revoke the credential in a file, and remove it. `push` tells the servers. Raises OSError."""
        with contextlib.suppress(FileNotFoundError, credentials.BadCredentials):
            self.revoke(credentials.read(file).public, which)
        file.unlink(missing_ok=True)

    async def push(self, system: Client, which: Account) -> None:
        """Give the servers the JWT of an account; connections of revoked credentials end within a second.

        `system`: a connection of the account SYS. Raises NotPushed, nats.errors.Error.
        """
        answer = json.loads((await system.request(PUSH, self.account(which).encode(), timeout=_PUSH_SECONDS)).data)
        if answer.get("error") or answer.get("data", {}).get("code") != 200:
            raise NotPushed(str((answer.get("error") or answer.get("data") or {}).get("description", "no reason")))


def signer_of(file: Path) -> NodeSigner:
    """The signer in a file (`Authority.signer_file`). Raises OSError, WrongKey, ValueError."""
    seed, account, *guests = file.read_text().split()
    if not guests:
        return NodeSigner(Key(seed.encode()), account)
    guest_seed, guest_account = guests
    return NodeSigner(Key(seed.encode()), account, Key(guest_seed.encode()), guest_account)
