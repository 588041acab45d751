"""The event log's server and the read models' server, for `nebula up` and for the tests.

Both listen on loopback, keep their data under a home directory, log to `home/log/`, can be killed and started
again on the same directory, and end when the process that started them ends. Libvirt, which outlives us, is
in `libvirtd.py`.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psycopg
from psycopg import sql

from runtime.files.files import put
from runtime.files.private import passable
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

NATS_CONF = Path(__file__).resolve().parent.parent.parent / "nats.conf"
POSTGRES_ROLES = NATS_CONF.with_name("postgres.sql")
#: Seconds until a server must answer: replaying a long log or a crashed database takes its time.
START_SECONDS = 60.0
#: The administrator, whom only set-up is.
ADMINISTRATOR = "nebula"
#: The file of a home in which the port of its Postgres stands.
POSTGRES_PORT = "postgres.port"


def _password_file(home: Path, user: str) -> Path:
    """`postgres.password` is the administrator's, `postgres.projections.password` is that of `nebula_projections`."""
    role = user.removeprefix(ADMINISTRATOR).removeprefix("_")
    return home / ".".join(["postgres", *([role] if role else []), "password"])


class PostgresRole(StrEnum):
    """Who may do what is in postgres.sql."""

    PROJECTIONS = "nebula_projections"
    GATEWAY = "nebula_gateway"


@dataclass(frozen=True)
class NatsServer:
    """A JetStream server that has answered. Start it again with `start_nats(home, port=server.port)`."""

    child: Child
    home: Path
    port: int
    #: where it says how it is, over HTTP on loopback
    monitor: int

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """End it in good order: clients are told, stores are closed."""
        await self.child.stop()

    async def kill(self) -> None:
        """End it as a crash would (SIGKILL). What it acknowledged is on disk."""
        await self.child.kill()


async def start_nats(home: Path, *, port: int = 0, conf: Path = NATS_CONF) -> NatsServer:
    """Start nats-server on the store in `home/nats`; port 0 picks a free one. Returns when JetStream answers.

    Raises ServerError when the program is missing, the port is taken, or the server does not come up.
    """
    program = find_program("nats-server")
    if program is None:
        raise ServerError("nats-server is not installed: run `make setup`, or set NEBULA_NATS_URL")
    store = home / "nats"
    passable(home)
    store.mkdir(exist_ok=True)
    pid_file = home / "nats.pid"
    await stop_leftover(pid_file, str(pid_file))
    port = port or free_port()
    require_free(port)
    monitor = free_port()
    child = await spawn(
        "nats-server",
        [str(program), "--config", str(conf), "--pid", str(pid_file), "--http_port", str(monitor)],
        home / "log" / "nats.log",
        env={"NEBULA_NATS_PORT": str(port), "NEBULA_NATS_STORE": json.dumps(str(store))},
    )
    server = NatsServer(child, home, port, monitor)
    try:
        await _wait_for_jetstream(server)
    except BaseException:
        await child.kill()
        raise
    return server


async def _wait_for_jetstream(server: NatsServer) -> None:
    """The server greets each client with one line, INFO and a JSON document that names its features."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not server.child.running:
            raise server.child.failure("did not start")
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
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
    """A Postgres server that has answered and holds the database `nebula`."""

    child: Child
    home: Path
    port: int
    password: str

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def dsn(self) -> str:
        """Where the database `nebula` is, for the administrator, password included: not for logs."""
        return self.dsn_of("nebula")

    def dsn_of(self, database: str, role: PostgresRole | None = None) -> str:
        """The same for another database, or for somebody with fewer rights."""
        user, password = ADMINISTRATOR, self.password
        if role is not None:
            user, password = role, _password_file(self.home, role).read_text()
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    async def stop(self) -> None:
        """Fast shutdown: sessions are cut off, committed work is kept."""
        await self.child.stop(signal.SIGINT)

    async def kill(self) -> None:
        """End it as a crash would (SIGKILL to the postmaster; its backends notice and follow)."""
        await self.child.kill()


async def start_postgres(home: Path, *, port: int | None = None, durable: bool = True) -> Postgres:
    """Start a private Postgres on `home/postgres`, made at the first call; as user `postgres` if we are root.

    Without `port` it keeps the one it had, or picks a free one. `durable=False` gives up safety in a power
    failure for speed. Raises ServerError when the programs are missing, `home` cannot be reached by the
    server's user, or the data was made by a version of Postgres that is not installed.
    """
    passable(home)
    data = home / "postgres"
    user = _postgres_user(home)
    programs = _postgres_programs(data)
    if not data.exists():
        await _initdb(programs, home, user)
    password = _password_file(home, ADMINISTRATOR).read_text()
    await stop_leftover(data / "postmaster.pid", str(data))

    if port is None:
        port = postgres_port(home)
    require_free(port)
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}
    if not durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    child = await spawn(
        "postgres",
        [
            str(programs / "postgres"),
            *("-D", str(data), "-p", str(port)),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        ],
        home / "log" / "postgres.log",
        user=user,
        death_signal="INT",
    )
    server = Postgres(child, home, port, password)
    try:
        await _wait_for_database(server)
        await set_up_roles(server, "nebula")
    except BaseException:
        await child.kill()
        raise
    put(home / POSTGRES_PORT, str(port))
    return server


def postgres_port(home: Path) -> int:
    """The port that the Postgres of this home had, or else a free one."""
    return remembered_port(home / POSTGRES_PORT) or free_port()


def remembered_dsn(home: Path) -> str | None:
    """Where the read models of a platform on `home` are, as its last start wrote it down, for who owns them.

    None when there are none.
    """
    user = PostgresRole.PROJECTIONS
    password, port = _password_file(home, user), remembered_port(home / POSTGRES_PORT)
    if port is None or not password.exists():
        return None
    return f"postgresql://{user}:{password.read_text().strip()}@127.0.0.1:{port}/nebula"


async def set_up_roles(server: Postgres, database: str) -> None:
    """Make the roles, with a password each, and give them their rights in `database`. Fine when it was done before."""
    async with await psycopg.AsyncConnection.connect(server.dsn_of(database)) as session:
        for role in PostgresRole:
            file = _password_file(server.home, role)
            if not file.exists():
                put(file, secrets.token_urlsafe(24))
            setting = f"nebula.{role.removeprefix('nebula_')}_password"
            await session.execute("SELECT set_config(%s, %s, true)", [setting, file.read_text()])
        await session.execute(POSTGRES_ROLES.read_bytes())


async def create_database(server: Postgres, name: str) -> str:
    """Create the empty database `name` unless it exists, and answer its DSN."""
    maintenance = server.dsn_of("postgres")
    async with await psycopg.AsyncConnection.connect(maintenance, autocommit=True) as session:
        found = await session.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if await found.fetchone() is None:
            await session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.dsn_of(name)


async def _wait_for_database(server: Postgres) -> None:
    """Until it lets us in. It refuses connections while it recovers from a crash."""
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


async def _initdb(programs: Path, home: Path, user: str | None) -> None:
    """Make `home/postgres` and the password beside it; renamed into place, so it is whole or absent."""
    new = home / "postgres.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    password = _password_file(home, ADMINISTRATOR)
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
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--data-checksums"),
        ],
        home / "log" / "postgres.log",
        user=user,
    )
    status = await child.process.wait()
    handed_over.unlink()
    if status != 0:
        raise child.failure(f"failed with exit status {status}")
    new.rename(home / "postgres")


def _postgres_user(home: Path) -> str | None:
    """Postgres refuses to run as root: then it runs as `postgres`, which must be able to walk to `home`."""
    if os.geteuid() != 0:
        return None
    for folder in (home.absolute(), *home.absolute().parents):
        if not folder.stat().st_mode & 0o001:
            raise ServerError(f"user postgres cannot enter {folder}: set NEBULA_HOME to where it can")
    return "postgres"


def _postgres_programs(data: Path) -> Path:
    """The folder of initdb and postgres: the version that made `data`, else PATH's, else the newest."""
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
