"""Starts the NATS server of the log and the Postgres server of the read models, for `nebula up` and for the tests.

Both listen on loopback, store their data in a home folder, and log to `home/log/`. They can be killed and started again
in the same folder, and end when the process that started them ends. `libvirtd.py` starts libvirt, which keeps running.
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psycopg
from psycopg import sql

from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import Account
from runtime.files.files import put
from runtime.files.private import passable
from runtime.local.adopt import adopt
from runtime.local.child import (
    Child,
    ServerError,
    find_program,
    free_port,
    remembered_port,
    require_free,
    spawn,
    stop_leftover,
)
from runtime.local.ports import on_free_ports

NATS_CONF = Path(__file__).resolve().parent.parent.parent / "nats.conf"
POSTGRES_ROLES = NATS_CONF.with_name("postgres.sql")
LOOPBACK = "127.0.0.1"
#: Seconds within which a server must answer. Recovery of a long log, or of a database after a crash, takes time.
START_SECONDS = 60.0
#: The administrator of Postgres, used for the set-up only.
ADMINISTRATOR = "nebula"
#: The file in a home with the port of its Postgres.
POSTGRES_PORT = "postgres.port"


def password_file(home: Path, user: str) -> Path:
    """The file with the password of a user: `postgres.password` for the administrator, `postgres.projections.password`
    for `nebula_projections`.
    """
    role = user.removeprefix(ADMINISTRATOR).removeprefix("_")
    return home / ".".join(["postgres", *([role] if role else []), "password"])


class PostgresRole(StrEnum):
    """The roles of Postgres. Their rights are in postgres.sql."""

    PROJECTIONS = "nebula_projections"
    GATEWAY = "nebula_gateway"


@dataclass(frozen=True)
class NatsServer:
    """A JetStream server that has answered. Start it again with `start_nats(home, port=server.port)`."""

    child: Child
    home: Path
    port: int
    #: its monitoring port for HTTP on loopback; 0 for none
    monitor: int
    #: the address at which it is reached, and whether only with TLS
    address: str = LOOPBACK
    encrypted: bool = False

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def url(self) -> str:
        scheme = "tls" if self.encrypted else "nats"
        return f"{scheme}://{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"

    async def stop(self) -> None:
        """Stop it cleanly: it informs its clients and closes its stores."""
        await self.child.stop()

    async def kill(self) -> None:
        """Kill it with SIGKILL, like a crash. Acknowledged messages are on the disk."""
        await self.child.kill()


def with_tls(conf: str, address: str, certificate: Path, key: Path) -> str:
    """A configuration in which the server listens on another address, with TLS 1.2 or newer only."""
    files = f"cert_file: {json.dumps(str(certificate))}, key_file: {json.dumps(str(key))}"
    moved = re.sub(r"(?m)^host: \S+", f"host: {json.dumps(address)}", conf)
    return f'{moved}\ntls {{ {files}, min_version: "1.2", timeout: 5 }}\n'


async def start_nats(
    home: Path,
    *,
    port: int = 0,
    conf: Path = NATS_CONF,
    address: str = LOOPBACK,
    encrypted: bool = False,
    accounts: Authority | None = None,
) -> NatsServer:
    """Start nats-server on the store in `home/nats`; `port` 0: a free port. Returns when JetStream answers.

    `address`, `encrypted`: where clients of this host reach it, and whether `conf` says that it speaks TLS.
    `accounts`: nobody connects without a credential of these, and there is no monitoring port. The streams of an
    earlier version, which had no accounts, become those of CONTROL.

    Raises ServerError if the program is missing, the port is in use, or the server does not start.
    """
    program = find_program("nats-server")
    if program is None:
        raise ServerError("nats-server is not installed: run `make setup`, or set NEBULA_NATS_URL")
    store = home / "nats"
    passable(home)
    store.mkdir(exist_ok=True)
    pid_file = home / "nats.pid"
    await stop_leftover(pid_file, str(pid_file))
    if port:
        require_free(port)
    if accounts is not None:
        accounts.write()  # with revocations that the server did not take while it ran
        adopt(store, accounts.public[Account.CONTROL])
        conf = accounts.configuration(conf)

    async def start(*free: int) -> NatsServer:
        """On the given port and these free ones: its own, if none is given, and the one for monitoring."""
        own, *rest = (*([port] if port else []), *free)
        require_free(own)
        monitor = ["--http_port", str(rest[0])] if rest else []
        child = await spawn(
            "nats-server",
            [str(program), "--config", str(conf), "--pid", str(pid_file), *monitor],
            home / "log" / "nats.log",
            env={"NEBULA_NATS_PORT": str(own), "NEBULA_NATS_STORE": json.dumps(str(store))},
        )
        return await once_ready(NatsServer(child, home, own, rest[0] if rest else 0, address, encrypted))

    return await on_free_ports((not port) + (accounts is None), start)


async def once_ready(server: NatsServer) -> NatsServer:
    """The server, once it serves JetStream. One that does not is ended. Raises ServerError."""
    try:
        await wait_for_jetstream(server)
    except BaseException:
        await server.child.kill()
        raise
    return server


async def wait_for_jetstream(server: NatsServer) -> None:
    """Wait until the server's greeting, the line INFO with a JSON document, names JetStream. Raises ServerError."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not server.child.running:
            raise server.child.failure("did not start")
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection(server.address, server.port)
            try:
                greeting = await asyncio.wait_for(reader.readline(), 5)
            finally:
                writer.close()
            if b'"jetstream":true' in greeting and server.child.running:
                return
        await asyncio.sleep(0.02)
    raise server.child.failure(f"did not enable JetStream within {START_SECONDS:.0f} s")


@dataclass(frozen=True)
class Postgres:
    """A Postgres server that has answered and has the database `nebula`."""

    child: Child
    home: Path
    port: int
    password: str
    #: the address at which it is reached
    address: str = LOOPBACK

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def dsn(self) -> str:
        """The DSN of the database `nebula` for the administrator. It has the password: do not log it."""
        return self.dsn_of("nebula")

    def dsn_of(self, database: str, role: PostgresRole | None = None) -> str:
        """The DSN of a database for the administrator, or for a role with fewer rights."""
        user, password = ADMINISTRATOR, self.password
        if role is not None:
            user, password = role, password_file(self.home, role).read_text()
        return f"postgresql://{user}:{password}@{self.address}:{self.port}/{database}"

    async def stop(self) -> None:
        """Stop it with a fast shutdown: sessions are closed, committed transactions are kept."""
        await self.child.stop(signal.SIGINT)

    async def kill(self) -> None:
        """Kill the postmaster with SIGKILL, like a crash; its backends then end by themselves."""
        await self.child.kill()


async def start_postgres(home: Path, *, port: int | None = None, durable: bool = True) -> Postgres:
    """Start a private Postgres on `home/postgres`, which the first call creates. If we are root it runs as user
    `postgres`.

    Without `port` it uses its last port, or a free one. `durable=False`: faster, but a power failure may lose data.
    Raises ServerError if the programs are missing, the server's user cannot reach `home`, or the data are of a version
    of Postgres that is not installed.
    """
    passable(home)
    data = home / "postgres"
    user = postgres_user(home)
    programs = postgres_programs(data)
    if not data.exists():
        await initdb(programs, home, user)
    password = password_file(home, ADMINISTRATOR).read_text()
    await stop_leftover(data / "postmaster.pid", str(data))

    if port is None:
        port = remembered_port(home / POSTGRES_PORT)
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}
    if not durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

    async def start(own: int) -> Postgres:
        require_free(own)
        child = await spawn(
            "postgres",
            [
                str(programs / "postgres"),
                *("-D", str(data), "-p", str(own)),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            home / "log" / "postgres.log",
            user=user,
            death_signal="INT",
        )
        server = Postgres(child, home, own, password)
        try:
            await wait_for_database(server)
            await set_up_roles(server, "nebula")
        except BaseException:
            await child.kill()
            raise
        put(home / POSTGRES_PORT, str(own))
        return server

    return await (start(port) if port is not None else on_free_ports(1, start))


def postgres_port(home: Path) -> int:
    """The last port of the Postgres of this home, or else a free one."""
    return remembered_port(home / POSTGRES_PORT) or free_port()


def remembered_dsn(home: Path) -> str | None:
    """The DSN of the read models of a platform on `home`, for the role that owns them, from the files of its last
    start.

    None if there are none.
    """
    user = PostgresRole.PROJECTIONS
    password, port = password_file(home, user), remembered_port(home / POSTGRES_PORT)
    if port is None or not password.exists():
        return None
    return f"postgresql://{user}:{password.read_text().strip()}@127.0.0.1:{port}/nebula"


async def set_up_roles(server: Postgres, database: str) -> None:
    """Create the roles with passwords, and grant their rights in `database`. Safe to repeat."""
    async with await psycopg.AsyncConnection.connect(server.dsn_of(database)) as session:
        for role in PostgresRole:
            file = password_file(server.home, role)
            if not file.exists():
                put(file, secrets.token_urlsafe(24))
            setting = f"nebula.{role.removeprefix('nebula_')}_password"
            await session.execute("SELECT set_config(%s, %s, true)", [setting, file.read_text()])
        await session.execute(POSTGRES_ROLES.read_bytes())


async def create_database(server: Postgres, name: str) -> str:
    """Create the empty database `name` if it does not exist. Returns its DSN."""
    maintenance = server.dsn_of("postgres")
    async with await psycopg.AsyncConnection.connect(maintenance, autocommit=True) as session:
        found = await session.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if await found.fetchone() is None:
            await session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.dsn_of(name)


async def wait_for_database(server: Postgres) -> None:
    """Wait until Postgres accepts connections; it refuses them while it recovers from a crash. Raises ServerError."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            await create_database(server, "nebula")
            return
        except psycopg.OperationalError as error:
            if not server.child.running:
                raise server.child.failure("did not start") from error
            if time.monotonic() > deadline:
                raise server.child.failure(f"did not answer within {START_SECONDS:.0f} s") from error
        await asyncio.sleep(0.05)


async def initdb(programs: Path, home: Path, user: str | None) -> None:
    """Create `home/postgres` and its password file. The folder is renamed into place, so it is never incomplete."""
    new = home / "postgres.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    password = password_file(home, ADMINISTRATOR)
    put(password, secrets.token_urlsafe(24))
    handed_over = home / "postgres.new.password"
    put(handed_over, password.read_text())
    if user is not None:
        shutil.chown(new, user, user)
        shutil.chown(handed_over, user, user)
    child = await spawn(
        "initdb",
        [
            str(programs / "initdb"),
            *("--pgdata", str(new), "--username", ADMINISTRATOR, "--pwfile", str(handed_over)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--data-checksums"),
            *("--locale", "C.UTF-8", "--lc-collate", "C"),  # the same order, but texts are compared faster
        ],
        home / "log" / "postgres.log",
        user=user,
    )
    status = await child.process.wait()
    handed_over.unlink()
    if status != 0:
        raise child.failure(f"failed with exit status {status}")
    new.rename(home / "postgres")


def postgres_user(home: Path) -> str | None:
    """The user for Postgres, which refuses to run as root: `postgres` then, who must have access to `home`."""
    if os.geteuid() != 0:
        return None
    for folder in (home.absolute(), *home.absolute().parents):
        if not folder.stat().st_mode & 0o001:
            raise ServerError(f"user postgres cannot enter {folder}: set NEBULA_HOME to a folder that it can enter")
    return "postgres"


def postgres_programs(data: Path) -> Path:
    """The folder of initdb and postgres: of the version that created `data`, else in PATH, else the newest."""
    packaged = {path.parent.name: path for path in Path("/usr/lib/postgresql").glob("*/bin")}
    in_path = find_program("initdb")
    if data.exists():
        version = (data / "PG_VERSION").read_text().strip()
        if version in packaged:
            return packaged[version]
        if in_path is None:
            raise ServerError(f"{data} needs Postgres {version}: install it, or remove the folder")
    if in_path is not None:
        return in_path.resolve().parent
    if packaged:
        return packaged[max(packaged, key=float)]
    raise ServerError("Postgres is not installed: run `make setup`, or set NEBULA_POSTGRES_DSN")
