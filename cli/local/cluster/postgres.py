"""A Postgres with a standby, on two hosts of a cluster on this machine.

The standby copies the primary by streaming replication, and becomes the primary when it is promoted. Nobody promotes it
by itself: with two servers, none of the two can know whether the other one has ended. The read models and their
checkpoint are in one transaction, so a standby that is behind only makes the projections read some events again.
Either of them is started again when it ends, but for one that was killed (`kill`).
"""

import asyncio
import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import psycopg

from cli.local.cluster.network import Host
from runtime.files.private import passable
from runtime.local import full_disk
from runtime.local.child import ServerError, spawn
from runtime.local.servers import (
    ADMINISTRATOR,
    Postgres,
    PostgresRole,
    initdb,
    password_file,
    postgres_programs,
    postgres_user,
    set_up_roles,
    wait_for_database,
)
from runtime.tasks.backoff import Backoff

PORT = 5432
#: Seconds before a server that ended is started again.
RESTART = Backoff(first=0.2, last=2.0)
#: Lines of pg_hba.conf: who may connect over the network, and copy the server. Everybody needs a password.
NETWORK_ACCESS = "host all all all scram-sha-256\nhost replication nebula all scram-sha-256\n"


@dataclass
class Pair:
    """Two hosts with a server each, in folders of the home. `primary`: the name of the host with the primary."""

    home: Path
    hosts: list[Host]
    primary: str
    running: dict[str, Postgres]

    @property
    def standby(self) -> str:
        return next(host.name for host in self.hosts if host.name != self.primary)

    def dsn(self, role: PostgresRole) -> str:
        """The DSN with both servers, of which the one is used that can write."""
        password = password_file(self._folder(self.hosts[0].name), role).read_text().strip()
        places = ",".join(f"{host.address}:{PORT}" for host in self.hosts)
        return f"postgresql://{role}:{password}@{places}/nebula?target_session_attrs=read-write"

    async def kill(self, name: str) -> None:
        """Kill a server, which stays down."""
        if name in self.running:
            await self.running.pop(name).kill()

    async def keep(self, name: str) -> None:
        """Start a server again whenever it ends by itself, once its disk has room, for ever."""
        pauses = RESTART.pauses()
        while True:
            server = self.running.get(name)
            if server is not None:
                await server.child.process.wait()
            await asyncio.sleep(next(pauses))
            if server is None or self.running.get(name) is not server:
                pauses = RESTART.pauses()
                continue
            await full_disk.has_room(self._folder(name))
            with contextlib.suppress(ServerError, OSError):
                if self.running.get(name) is server:
                    await self._start(name)

    async def start(self) -> None:
        """Start the primary, and the standby as its copy. Raises ServerError."""
        await self.start_primary()
        await self.copy()

    async def start_primary(self) -> None:
        """Start the primary again, or for the first time."""
        folder = passable(self._folder(self.primary))
        data = folder / "postgres"
        if not data.exists():
            await initdb(postgres_programs(data), folder, postgres_user(folder))
            with (data / "pg_hba.conf").open("a") as access:
                access.write(NETWORK_ACCESS)
        server = await self._start(self.primary)
        await wait_for_database(server)
        await set_up_roles(server, "nebula")

    async def copy(self) -> None:
        """Make the standby a new copy of the primary, and start it. What it had is removed."""
        name = self.standby
        await self.kill(name)
        folder = passable(self._folder(name))
        data, user = folder / "postgres", postgres_user(folder)
        primary = self.running[self.primary]
        place = f"host={primary.address} port={PORT} user={ADMINISTRATOR} password={primary.password}"
        if data.exists():
            shutil.rmtree(data)
        for file in primary.home.glob("postgres*.password"):
            (folder / file.name).write_bytes(file.read_bytes())
            (folder / file.name).chmod(0o600)
        data.mkdir(mode=0o700)
        if user is not None:
            shutil.chown(data, user, user)
        child = await spawn(
            "pg_basebackup",
            [
                str(postgres_programs(data.with_name("none")) / "pg_basebackup"),
                *("--pgdata", str(data), "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast"),
                *("--dbname", place),
            ],
            self.home / "log" / f"postgres-{name}.log",
            user=user,
            namespace=self._host(name).namespace,
        )
        if await child.process.wait() != 0:
            raise child.failure("failed")
        await self._start(name)

    async def promote(self) -> None:
        """Make the standby the primary. The old primary must not run any more: it is copied anew before its return."""
        old, name = self.primary, self.standby
        await self.kill(old)
        server = self.running[name]
        async with await psycopg.AsyncConnection.connect(server.dsn_of("postgres"), autocommit=True) as session:
            await session.execute("SELECT pg_promote()")
        self.primary = name

    async def stop(self) -> None:
        for name in (self.standby, self.primary):
            if name in self.running:
                await self.running.pop(name).stop()

    async def _start(self, name: str) -> Postgres:
        host, folder = self._host(name), self._folder(name)
        data = folder / "postgres"
        settings = {
            "listen_addresses": host.address,
            "unix_socket_directories": "",
            "max_connections": "200",
            "wal_level": "replica",
            "hot_standby": "on",
            "wal_keep_size": "256MB",
        }
        child = await spawn(
            f"postgres-{name}",
            [
                str(postgres_programs(data) / "postgres"),
                *("-D", str(data), "-p", str(PORT)),
                *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
            ],
            self.home / "log" / f"postgres-{name}.log",
            user=postgres_user(folder),
            death_signal="INT",
            namespace=host.namespace,
        )
        password = password_file(folder, ADMINISTRATOR).read_text()
        self.running[name] = Postgres(child, folder, PORT, password, host.address)
        return self.running[name]

    def _host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def _folder(self, name: str) -> Path:
        return self.home / "hosts" / name


def pair(home: Path, hosts: list[Host]) -> Pair:
    """Raises ServerError if there are not two hosts."""
    if len(hosts) != 2:
        raise ServerError("a primary and a standby need two hosts")
    return Pair(home, hosts, hosts[0].name, {})
