"""A platform with two processes of each role, each of the version before this one or of this one.

Everything is as where roles start one by one (docs/nodes.md, *A bus of your own*): `nebula bus init` and `nebula bus
serve`, one NATS server with accounts, Postgres with its roles, and a home for each process, with the same keys. There
are two fleets of simulated nodes, each in one process.
"""

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench import homes
from cli.local import home as local
from eventstore.integrity.checkpoints import signing_key
from eventstore.log.envelope import Recorded
from eventstore.log.keyring import Keyring
from eventstore.log.store import EventStore
from runtime import subjects
from runtime.bus import bus
from runtime.bus.accounts.table import MAINTENANCE, SIMULATION
from runtime.files.private import passable
from runtime.local.child import Child, find_program, free_port, spawn
from runtime.local.servers import Postgres, PostgresRole, start_postgres
from runtime.node_keys import node_keys
from runtime.settings import Common
from tests.upgrade import programs
from tests.waiting import eventually

#: Roles of which there are two processes, in the documented order of an upgrade.
TWICE = ("projections", "gateway", "handlers", "guest-data")
AUTHORITY = "authority"
FLEETS = ("early", "late")
#: Simulated nodes are as quick as they can be.
SECONDS = {"call": 0, "image": 0, "boot": 0.02, "lease": 0, "shutdown": 0.02}


@dataclass(frozen=True)
class Version:
    """`folder`: where its programs are; None: those of this version."""

    name: str
    folder: Path | None


@dataclass
class Bed:
    """`nodes`: number of simulated nodes of each fleet."""

    home: Path
    postgres: Postgres
    before: Version
    nodes: int
    now: Version = field(default_factory=lambda: Version("now", None))
    ports: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {role: (free_port(), free_port()) for role in ("gateway", "guest-data")}
    )
    nats_port: int = field(default_factory=free_port)
    processes: dict[str, Child] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    #: the process that is being replaced, if one is: its role and number
    away: tuple[str, int] | None = None

    @property
    def nats_url(self) -> str:
        return f"nats://127.0.0.1:{self.nats_port}"

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    @property
    def event_keys(self) -> Keyring:
        return Keyring(self.keys / "event.keys")

    @property
    def images(self) -> Path:
        """The folder from which handlers accept files as images."""
        return self.home / "images"

    @property
    def authority(self) -> Path:
        return self.home / AUTHORITY

    def log(self, name: str) -> Path:
        return self.home / "log" / f"{name}.log"

    # ── processes ───────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, version: Version, *words: str, **settings: str) -> None:
        """Run a program of a version to its end, as the authority. Raises ServerError."""
        env = {**self.environment(AUTHORITY, 0), **programs.environment(version.folder), **settings}
        child = await spawn(words[1], [sys.executable, *words], self.log("commands"), env=env)
        if await child.process.wait() != 0:
            raise child.failure("failed")

    async def start(self, version: Version, role: str, number: int = 0) -> Child:
        """Start a process of a role, which may not be ready yet."""
        name = f"{role}-{number}"
        program = SIMULATION if role in FLEETS else role
        env = {**self.environment(role, number), **programs.environment(version.folder)}
        argv = [sys.executable, "-m", "cli.local.role", program]
        self.processes[name] = await spawn(name, argv, self.log(name), env=env)
        self.versions[name] = version
        return self.processes[name]

    async def stop(self, role: str, number: int = 0) -> None:
        """End it as a package's unit does."""
        await self.processes[f"{role}-{number}"].stop()

    async def replace(self, version: Version, role: str, number: int = 0) -> None:
        """Stop a process, start it in a version, and wait until it works."""
        self.away = (role, number)
        await self.stop(role, number)
        await self.start(version, role, number)
        await self.ready(role, number)
        self.away = None

    async def ready(self, role: str, number: int = 0) -> None:
        """Wait until a process works. Raises AssertionError, or ServerError if it has ended."""
        child = self.processes[f"{role}-{number}"]
        wanted = {AUTHORITY: "the authority of the bus runs", **dict.fromkeys(FLEETS, "all nodes run")}

        async def works() -> bool:
            if not child.running:
                raise child.failure("ended")
            if role in wanted:
                return wanted[role] in child.log.read_bytes()[child.log_start :].decode(errors="replace")
            port = self.ports["gateway"][number if role == "gateway" else 0]
            with contextlib.suppress(httpx.HTTPError):
                async with self.client() as http:
                    answer = await http.get(f"http://127.0.0.1:{port}/v1/status")
                    roles = answer.json()["roles"] if answer.is_success else []
                    return any(each["alive"] and each["process"]["pid"] == child.pid for each in roles)
            return False

        await eventually(works, f"{role} {number} works: {child.log}", 90)

    # ── settings ────────────────────────────────────────────────────────────────────────────────────────────────

    def environment(self, role: str, number: int) -> Mapping[str, str]:
        own = self.home / "hosts" / f"{role}-{number}"
        if role == AUTHORITY:
            own = self.authority
        passable(own)
        found = {
            "HOME": own,
            "NATS_URL": self.nats_url,
            "UNSIGNED_NODES": "false",  # the tests have another value in their environment
            "NODE_TIMEOUT": 15,
            "CHECKPOINT_SECONDS": 2,
            "SNAPSHOT_EVENTS": 100,
            "IMAGE_PATHS": self.images,
            **self._own(role, number, own),
        }
        return {f"NEBULA_{name}": str(value) for name, value in found.items()}

    def _own(self, role: str, number: int, own: Path) -> Mapping[str, object]:
        files = self.home / "bus"
        keys = {"MASTER_KEY_FILE": self.keys / "master.key", "EVENT_KEYS_FILE": self.keys / "event.keys"}
        creds = {"NATS_CREDS": files / role / "bus.creds"}
        match role:
            case "authority":
                return {"BUS_FILES": files, "BUS_RESOLVER": self.home / "nats" / "accounts"}
            case "handlers":
                for file in ("checkpoint.key", "checkpoint.pub"):
                    shutil.copy(self.keys / file, own / file)
                signer = files / role / "node-signer"
                return {**creds, **keys, "NODE_KEYS_FILE": self.keys / "node.keys", "NODE_SIGNER_FILE": signer}
            case "projections":
                return {**creds, **keys, "POSTGRES_DSN": self.dsn(PostgresRole.PROJECTIONS)}
            case "gateway":
                return {
                    **creds,
                    "EVENT_KEYS_FILE": self.keys / "event.keys",
                    "POSTGRES_DSN": self.dsn(PostgresRole.GATEWAY),
                    "HTTP_PORT": self.ports[role][number],
                    "PEPPER_FILE": self.keys / "pepper.key",
                    "TOKENS_FILE": local.tokens_file(self.home),
                }
            case "guest-data":
                # Another user, who may not enter the folder of a role.
                creds = {"NATS_CREDS": self.authority / "bus" / "guest-data.creds"}
                return {**creds, "SEED_HOST": "127.0.0.1", "SEED_PORT": self.ports[role][number]}
            case _:
                return {
                    "NATS_CREDS": self.authority / "bus" / "simulation.creds",
                    "NODE_KEYS_FILE": self.keys / "node.keys",
                    "SIMULATE": self.nodes,
                    "SIMULATE_PREFIX": role,
                    "SIMULATE_SECONDS": json.dumps(SECONDS),
                    "HEARTBEAT_SECONDS": 1,
                    "RESYNC_SECONDS": 1,
                    "SEED_URL": f"http://127.0.0.1:{self.ports['guest-data'][0]}/",
                }

    def dsn(self, role: PostgresRole) -> str:
        return self.postgres.dsn_of("nebula", role)

    # ── from outside ────────────────────────────────────────────────────────────────────────────────────────────

    def client(self) -> httpx.AsyncClient:
        token = (self.home / "admin.token").read_text().strip()
        return httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False)

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[bus.Connection]:
        """A connection with the credential of the operator."""
        creds = self.authority / "bus" / f"{MAINTENANCE}.creds"
        nc = await bus.connect(Common(home=self.home, nats_url=self.nats_url, nats_creds=creds), "tests")
        try:
            yield nc
        finally:
            await nc.close()

    async def events(self, project: str | None = None) -> list[Recorded]:
        """The events of the log of now; with a project, its own."""
        found: list[Recorded] = []
        async with self.bus() as nc:
            store = EventStore(nc, self.event_keys)
            while page := await store.read(found[-1].position if found else 0, subjects.events(project)):
                found += page
        return found


#: Makes the credential of simulated nodes, which `nebula bus init` does not make.
SIMULATED = """
import sys, pathlib
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import SIMULATION
Authority(pathlib.Path(sys.argv[1])).renew(SIMULATION)
"""


async def init(made: Bed, version: Version) -> None:
    """The keys and files of the bus, as that version makes them. Repeatable."""
    await made.run(version, "-m", "cli.main", "bus", "init")
    await made.run(version, "-c", SIMULATED, str(made.authority))


@asynccontextmanager
async def bed(nodes: int = 2) -> AsyncIterator[Bed]:
    """A platform of the version before, all of whose processes work."""
    async with AsyncExitStack() as stack:
        home = stack.enter_context(homes.home("upgrade"))
        folder = await asyncio.to_thread(programs.unpack, home / "before")
        postgres = await start_postgres(home, durable=False)
        stack.push_async_callback(postgres.stop)
        made = Bed(home, postgres, Version("before", folder), nodes)
        passable(made.keys)
        signing_key(made.keys / "checkpoint.key")
        node_keys(made.keys / "node.keys")
        await init(made, made.before)
        env = {"NEBULA_NATS_PORT": str(made.nats_port), "NEBULA_NATS_STORE": json.dumps(str(home / "nats"))}
        program, conf = str(find_program("nats-server")), str(home / "bus" / "server" / "nats.conf")
        server = await spawn("nats", [program, "--config", conf], made.log("nats"), env=env)
        stack.push_async_callback(server.stop)
        stack.push_async_callback(_stop_all, made)
        await made.start(made.before, AUTHORITY)
        await made.start(made.before, "handlers", 0)  # alone: it makes the keys
        await eventually((made.keys / "event.keys").exists, "handlers have made the keys")
        for role in TWICE:
            for number in (0, 1):
                if (role, number) != ("handlers", 0):
                    await made.start(made.before, role, number)
        for fleet in FLEETS:
            await made.start(made.before, fleet)
        for role in (AUTHORITY, *FLEETS):
            await made.ready(role)
        for role in TWICE:
            for number in (0, 1):
                await made.ready(role, number)
        yield made


async def _stop_all(made: Bed) -> None:
    await asyncio.gather(*(child.stop() for child in made.processes.values()))
