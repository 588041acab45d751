"""A whole cloud for a benchmark: real servers and real role processes on free ports, in a directory of its own."""

import asyncio
import hashlib
import os
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import libvirt
import nats
from nats.aio.client import Client

from bench.homes import home, remove_guests
from bench.http import Connection
from cli.local.role import COMMAND, PRELOADED
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import A_NODE, MAINTENANCE, SIMULATION
from runtime.bus.login import login
from runtime.local.child import Child, free_port, spawn
from runtime.local.forks import Forks
from runtime.local.servers import NatsServer, Postgres, start_nats, start_postgres
from runtime.node_keys import give, node_keys
from runtime.settings import Common
from runtime.tasks.tasks import heed_cancellation

PROJECT = "bench"
IMAGE = "blank"
NODE = "bench"


class Servers(NamedTuple):
    nats: NatsServer
    postgres: Postgres


@dataclass
class Cloud:
    home: Path
    nats_url: str
    http_port: int
    processes: dict[str, Child] = field(default_factory=dict)
    #: the environment of all roles
    env: dict[str, str] = field(default_factory=dict)
    servers: Servers | None = None
    #: the ports of further gateways
    more_ports: list[int] = field(default_factory=list)
    connections: int = 0
    #: starts the roles as forks, as `nebula up` does; None: each is a new interpreter
    forks: Forks | None = None

    def connection(self) -> Connection:
        """A connection to a gateway; each time to the next one."""
        ports = [self.http_port, *self.more_ports]
        self.connections += 1
        return Connection("127.0.0.1", ports[self.connections % len(ports)])

    async def bus(self) -> Client:
        """A bare connection of nats-py to the bus, with the operator's credential."""
        mine = Common(nats_creds=Authority(self.home).file(MAINTENANCE))
        return await nats.connect(self.nats_url, **login(mine).options)

    def env_of(self, role: str) -> dict[str, str]:
        """The environment of a role, with its own credential on the bus."""
        name = role if role != A_NODE else f"{A_NODE}-{NODE}"
        return self.env | {"NEBULA_NATS_CREDS": str(Authority(self.home).file(name))}

    async def start(
        self, role: str, *, name: str | None = None, program: Sequence[str] | None = None, **settings: str
    ) -> Child:
        """Start a role, as process `name`, with more settings. It is stopped in the end.

        `program`: the arguments of Python, instead of those that start the role.
        """
        command = [*COMMAND, role] if program is None else [sys.executable, *program]
        env = self.env_of(role) | settings
        # In our session, since Linux divides its processors among sessions first (autogroup).
        begin = self.forks.spawn if self.forks is not None else spawn
        child = await begin(name or role, command, self.home / "roles.log", env=env, new_session=False)
        self.processes[name or role] = child
        return child

    def check(self) -> None:
        """Raises RuntimeError if a process has ended."""
        for child in self.processes.values():
            if not child.running:
                raise child.failure("ended")

    async def start_another_gateway(self) -> None:
        """Start a gateway on a port of its own. It gets its share of the connections once it answers."""
        port = free_port()
        await self.start("gateway", name=f"gateway-{len(self.more_ports) + 2}", NEBULA_HTTP_PORT=str(port))
        await replace(self, http_port=port, more_ports=[]).healthy()
        self.more_ports.append(port)

    async def stop(self, name: str) -> None:
        """Stop a role."""
        await self.processes.pop(name).stop()

    async def healthy(self) -> None:
        """Wait until commands are accepted over HTTP."""
        await _healthy(self)

    def pss_mib(self) -> dict[str, float]:
        """Proportional set size of each role, in MiB: shared pages are split among those who share them."""
        return {name: round(pss_mib(process.pid), 1) for name, process in self.processes.items()}

    async def prepare(self) -> None:
        """A project and an image without an operating system."""
        path = self.home / "images" / "blank.raw"
        path.parent.mkdir()
        body = b"\0" * 510 + b"\x55\xaa" + b"\0" * (1024 * 1024 - 512)
        path.write_bytes(body)
        async with self.connection() as http:
            await expect(http, "POST", "/v1/projects", {"id": PROJECT, "name": "Bench"})
            image = {"id": IMAGE, "source": str(path), "sha256": hashlib.sha256(body).hexdigest()}
            await expect(http, "POST", "/v1/images?wait=30s", image)


async def expect(http: Connection, method: str, path: str, body: Any = None) -> Any:
    """The body of an answer that has to be a success. A read waits for read models that are behind."""
    heed_cancellation()
    answer = await http.request(method, path, body)
    while method == "GET" and answer.status == 503 and b"position_not_reached" in answer.body:
        await asyncio.sleep(0.1)
        answer = await http.request(method, path, body)
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {answer.body[:500]!r}")
    return answer.json() if answer.body else None


def pss_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


def cpu_seconds(pid: int) -> float:
    """CPU time of a process until now, of its ended children too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def cloud(roles: Sequence[str], **settings: str) -> AsyncIterator[Cloud]:
    """Servers and roles, up and answering; everything is stopped and removed in the end."""
    async with servers(None, **settings) as made:
        await _begin(made, roles)
        yield made


@asynccontextmanager
async def forked(roles: Sequence[str], **settings: str) -> AsyncIterator[Cloud]:
    """The same, with roles that are forks of one process, as with `nebula up`."""
    async with (
        servers(None, **settings) as made,
        Forks(COMMAND, PRELOADED, made.home / "forks.log", new_session=False) as made.forks,
    ):
        await _begin(made, roles)
        yield made


async def _begin(made: Cloud, roles: Sequence[str]) -> None:
    for role in roles:
        await made.start(role)
    await made.healthy()
    heed_cancellation()


@asynccontextmanager
async def servers(prepare: Callable[[Path], None] | None, **settings: str) -> AsyncIterator[Cloud]:
    """The servers of a cloud without roles. All roles that are started, and the servers, are stopped in the end.

    `prepare`: called with the empty folder before the servers start; None: nothing is prepared.
    """
    with home("bench") as folder:
        if prepare is not None:
            await asyncio.to_thread(prepare, folder)
        async with servers_in(folder, settings) as made:
            yield made


@asynccontextmanager
async def servers_in(folder: Path, settings: Mapping[str, str]) -> AsyncIterator[Cloud]:
    """The same in a folder that stays, and may have the data of an earlier run."""
    async with AsyncExitStack() as stack:
        if "NEBULA_LIBVIRT_URI" in settings:
            stack.callback(_remove_guests, settings["NEBULA_LIBVIRT_URI"], folder)
        authority = Authority(folder)
        server = await start_nats(folder, accounts=authority)
        stack.push_async_callback(server.stop)
        authority.renew(A_NODE, NODE)
        authority.renew(SIMULATION)
        give(node_keys(folder / "node.keys"), NODE, folder / "node" / "node.key")
        postgres = await start_postgres(folder)
        stack.push_async_callback(postgres.stop)
        made = Cloud(folder, server.url, free_port(), servers=Servers(server, postgres))
        made.env = {
            "NEBULA_HOME": str(folder),
            "NEBULA_NATS_URL": server.url,
            "NEBULA_NODE": NODE,
            "NEBULA_POSTGRES_DSN": postgres.dsn,
            "NEBULA_HTTP_PORT": str(made.http_port),
            "NEBULA_SEED_HOST": "127.0.0.1",
            "NEBULA_SEED_PORT": str(free_port()),
            "NEBULA_LOG_LEVEL": "warning",
            "NEBULA_AUTH": "none",
            **settings,
        }
        stack.push_async_callback(_stop_all, made)
        yield made


async def _stop_all(made: Cloud) -> None:
    """Stop the roles, the newest first."""
    for name in reversed(list(made.processes)):
        await made.stop(name)


def _remove_guests(uri: str, folder: Path) -> None:
    """Remove the guests of a benchmark that did not complete: guests keep running when their platform ends."""
    connection = libvirt.open(uri)
    remove_guests(connection, [folder])
    connection.close()


async def _healthy(made: Cloud) -> None:
    """Wait until commands are accepted."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        made.check()
        try:
            async with made.connection() as http:
                answer = await http.request("POST", "/v1/tags", {"id": "warm", "name": "warm"})
                if answer.status in (200, 202, 409):
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError(f"no answer within a minute: {(made.home / 'roles.log').read_text()[-3000:]}")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of all lies."""
    return statistics.quantiles(values, n=100)[round(share * 100) - 1]
