"""The authority of the bus for a platform whose server and roles start one by one, as in compose.yaml and deploy/.

It puts what each role needs into a folder of its own, and nothing else:

    <role>/bus.creds        who the role is on the bus: of gateway, handlers, projections and guest-data
    handlers/node-signer    the key that signs credentials of nodes
    server/nats.conf        the configuration of the server; it has no secret
    server-<name>/          the same of each server of a cluster (NEBULA_BUS_SERVERS), with its certificate and its key

A folder that exists keeps its owner and group. The files are readable for that group, so that each role may be another
user than the authority.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.local.accounts import Accounts
from runtime import logs
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import GATEWAY, GUEST_DATA, HANDLERS, PROJECTIONS, SYSTEM, Account
from runtime.files.files import put
from runtime.files.private import passable
from runtime.local.servers import NATS_CONF
from runtime.members import AUTHORITY, CERTIFICATE, Member, clustered
from runtime.settings import AuthoritySettings
from runtime.tasks.essential import Essential, until_stopped
from runtime.tasks.stopping import on_signals
from runtime.tls.authority import ensure_authority, ensure_server

log = logs.get(__name__)

#: The roles that get a credential. The others are the authority's own, or an operator's.
GIVEN = (GATEWAY, HANDLERS, PROJECTIONS, GUEST_DATA)
SERVER = "server"
#: Permissions of the files, and of a folder that is made here.
FILE, FOLDER = 0o640, 0o750


@dataclass
class Deployed(Accounts):
    """`files`: the folder with the folders of the roles; `resolver`: where the server keeps the accounts."""

    files: Path = Path()
    resolver: Path = Path()
    #: the servers of a cluster, and the folder in which each finds its files
    members: Sequence[Member] = ()
    server_files: Path = Path()

    def renew(self) -> None:
        """Renew what expires soon, and put everything where its reader finds it. Raises OSError."""
        super().renew()
        self.authority.write()
        for role in GIVEN:
            self._give(role, "bus.creds", self.authority.file(role).read_text())
        self._give(HANDLERS, "node-signer", self.authority.signer_file.read_text())
        if not self.members:
            self._give(SERVER, "nats.conf", self.authority.configured(NATS_CONF, self.resolver, preload=True))
            return
        tls = self.authority.folder / "tls"
        own = ensure_authority(tls)
        for member in self.members:
            made = tls / member.name
            made.mkdir(mode=0o700, exist_ok=True)
            ensure_server(made, own, {member.name, member.address, "localhost"}, routes=True)
            reader = f"{SERVER}-{member.name}"
            base = clustered(NATS_CONF.read_text(), member, self.members, self.server_files)
            self._give(reader, "nats.conf", self.authority.configured(base, self.resolver, preload=True))
            self._give(reader, CERTIFICATE, (made / "server.pem").read_text())
            self._give(reader, AUTHORITY, own.pem.decode())
        for role in GIVEN:
            self._give(role, AUTHORITY, own.pem.decode())

    def _give(self, reader: str, name: str, content: str) -> None:
        folder = passable(self.files) / reader
        if not folder.exists():
            folder.mkdir()
            folder.chmod(FOLDER if reader != SERVER else 0o755)
        file = folder / name
        mode = FILE if reader != SERVER else 0o644
        put(file, content, mode)
        file.chmod(mode)  # without the umask


def of(settings: AuthoritySettings) -> Deployed:
    """Raises OSError, WrongKey."""
    return Deployed(
        Authority(settings.home),
        None,
        files=settings.bus_files,
        resolver=settings.bus_resolver,
        members=settings.bus_members,
        server_files=settings.bus_server_files,
    )


async def run(settings: AuthoritySettings) -> None:
    """Renew credentials, revoke those of nodes, record what the bus refuses, until SIGTERM or SIGINT.

    Raises CannotRun, OSError, WrongKey.
    """
    stop = asyncio.Event()
    on_signals(stop)
    await until_stopped(stop, keep(settings))
    log.info("the authority of the bus stopped")


async def keep(settings: AuthoritySettings) -> None:
    """The same, for ever."""
    accounts = of(settings)
    await asyncio.to_thread(accounts.renew)
    async with accounts.serving(settings, settings.bus_log) as connections, Essential() as essential:
        system = accounts.system
        assert system is not None, f"a connection of the role {SYSTEM}"
        for which in Account:
            if which is not Account.SYS:
                await accounts.authority.push(system, which)  # such as permissions of a newer version
        for nc in connections:
            essential.start("bus", nc.until_ended())
        for name, task in accounts.tasks():
            essential.start(name, task)
        log.info("the authority of the bus runs", files=str(settings.bus_files))
        await essential.for_ever()
