"""Three hosts with everything twice: three NATS servers, Postgres with a standby, and two of each role.

| host | NATS | Postgres | handlers | gateway | projections | guest-data | authority |
|---|---|---|---|---|---|---|---|
| a | yes | primary | yes | yes | | yes | yes |
| b | yes | standby | yes | | yes | yes | |
| c | yes | | | yes | yes | | |

A fourth host, `n`, has the simulated nodes. What ends by itself is started again. A NATS server whose name is in `down`
stays down.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.client.credentials import CA_FILE
from cli.local import home as homes
from cli.local.bus_authority import Deployed
from cli.local.cluster import nats, postgres
from cli.local.cluster.balancer import Balancer
from cli.local.cluster.network import Host, Network
from cli.local.role import COMMAND, PRELOADED
from eventstore.integrity.checkpoints import signing_key
from runtime.bus.accounts.table import GATEWAY, GUEST_DATA, PROJECTIONS, SIMULATION
from runtime.files.files import put
from runtime.files.private import passable
from runtime.local import full_disk
from runtime.local.child import ServerError
from runtime.local.forks import Forks
from runtime.local.servers import NatsServer, PostgresRole
from runtime.local.supervise import Role, Supervisor
from runtime.node_keys import node_keys
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import end
from runtime.tls.authority import ensure_authority, ensure_server

SERVERS = ["a", "b", "c"]
NODES = "n"
#: The hosts of each role.
PLACES = {
    "authority": ["a"],
    "handlers": ["a", "b"],
    "projections": ["b", "c"],
    "gateway": ["a", "c"],
    "guest-data": ["a", "b"],
}
DATABASES = ["a", "b"]
HTTP_PORT, SEED_PORT = 8700, 8775
#: Seconds before a NATS server that ended is started again.
RESTART = Backoff(first=0.2, last=2.0)


@dataclass
class Cluster:
    """`simulate`: number of simulated nodes; 0 for none. `more`: settings of all roles, without their prefix.

    `places`: the hosts of each role. Without gateway and projections there is no Postgres.
    """

    home: Path
    network: Network
    simulate: int = 0
    more: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Sequence[str]] = field(default_factory=lambda: PLACES)
    servers: dict[str, NatsServer] = field(default_factory=dict)
    #: the NATS servers that are not started again now
    down: set[str] = field(default_factory=set)
    url: str = ""

    def __post_init__(self) -> None:
        passable(self.home)
        for name in ("log", "run", "keys"):
            (self.home / name).mkdir(exist_ok=True)
        for host in self.network.hosts:
            passable(self.home / "hosts" / host.name)  # Postgres and guest-data are other users
        self.bus: Deployed = nats.deployed(self.home, self.network, SERVERS, simulated=self.simulate > 0)
        self.pair = postgres.pair(self.home, [self.network.host(name) for name in DATABASES])
        gateways = [(self.network.host(name).address, HTTP_PORT) for name in self.places.get(GATEWAY, ())]
        self.balancer = Balancer(gateways)
        self.forks = Forks(COMMAND, PRELOADED, self.home / "log" / "forks.log")
        self.roles = Supervisor([], self.home / "log", self.forks)
        self._keeping: list[asyncio.Task[None]] = []
        self._starting = {name: asyncio.Lock() for name in SERVERS}

    @property
    def nats_url(self) -> str:
        return nats.urls(self.network, SERVERS)

    async def start(self, port: int = 0) -> None:
        """Start all of it. `port`: that of the balancer. Returns when all is started; it may not be ready yet."""
        self.forks.start()
        await asyncio.to_thread(self.bus.renew)
        node_keys(self.home / "keys" / "node.keys")
        await asyncio.gather(*(self.start_server(name) for name in SERVERS), self._start_postgres())
        self._keeping = [asyncio.create_task(self._keep(name)) for name in SERVERS]
        self._keeping += [asyncio.create_task(self.pair.keep(name)) for name in DATABASES if name in self.pair.running]
        port = await self.balancer.start(port)
        self.url = f"https://127.0.0.1:{port}"
        put(homes.api_url_file(self.home), self.url)
        put(self.home / CA_FILE, self.ca.read_bytes())
        homes.tokens_file(self.home)
        for role, places in self.places.items():
            for place in places:
                self.roles.add(self._role(role, self.network.host(place)))
        if self.simulate:
            self.roles.add(self._role(SIMULATION, self.network.host(NODES)))

    async def stop(self) -> None:
        await end(self._keeping)
        await self.balancer.stop()
        await self.roles.stop()
        await self.forks.stop()
        await asyncio.gather(self.pair.stop(), *(server.stop() for server in self.servers.values()))

    async def _start_postgres(self) -> None:
        if not self.places.keys().isdisjoint({GATEWAY, PROJECTIONS}):
            await self.pair.start()

    @property
    def ca(self) -> Path:
        return self.home / "authority" / "bus" / "tls" / "ca.pem"

    @property
    def seeds(self) -> str:
        """The URL of a guest-data."""
        return f"http://{self.network.host(PLACES[GUEST_DATA][0]).address}:{SEED_PORT}"

    @property
    def processes(self) -> Mapping[str, int]:
        """The process ids of all that runs now: `nats-a`, `postgres-b`, `gateway-c`, and `fork-server` …"""
        servers = {f"nats-{name}": server.child for name, server in self.servers.items()}
        databases = {f"postgres-{name}": database.child for name, database in self.pair.running.items()}
        own = {name: child.pid for name, child in {**servers, **databases}.items() if child.running}
        forks = {} if self.forks.pid is None else {"fork-server": self.forks.pid}
        return {**own, **self.roles.pids, **forks}

    # ── NATS ────────────────────────────────────────────────────────────────────────────────────────────────────

    def store(self, name: str) -> Path:
        """The folder of the streams of a server."""
        return self.home / "hosts" / name / "nats"

    async def start_server(self, name: str) -> None:
        """Start a server, and keep it running from now on."""
        async with self._starting[name]:  # two on one store would destroy it
            if name not in self.servers or not self.servers[name].child.running:
                self.servers[name] = await nats.start_member(self.home, self.network.host(name), self.store(name))
            self.down.discard(name)

    async def stop_server(self, name: str) -> None:
        """Kill a server, which stays down."""
        self.down.add(name)
        await self.servers[name].kill()

    async def _keep(self, name: str) -> None:
        """Start a server again whenever it ends, once its disk has room. End one that cannot store any more."""
        pauses = RESTART.pauses()
        while True:
            child = self.servers[name].child
            watching = asyncio.create_task(full_disk.gives_up(child.log, child.log_start))
            ended = asyncio.create_task(child.process.wait())
            try:
                await asyncio.wait({watching, ended}, return_when=asyncio.FIRST_COMPLETED)
                await full_disk.has_room(self.store(name))
                await child.stop()  # which returns when it has ended
            finally:
                await end([watching, ended])
            await asyncio.sleep(next(pauses))
            if name not in self.down:
                with contextlib.suppress(ServerError):
                    await self.start_server(name)
                    pauses = RESTART.pauses()

    # ── roles ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _role(self, name: str, host: Host) -> Role:
        return Role(f"{name}-{host.name}", [*COMMAND, name], self.environment(name, host), host.namespace)

    def environment(self, name: str, host: Host) -> dict[str, str]:
        """The settings of a role on a host: as on a real host, with the same keys on all of them."""
        keys, own = self.home / "keys", self.home / "hosts" / host.name / name
        own.parent.mkdir(parents=True, exist_ok=True)
        passable(own)
        shared = name in (SIMULATION, GUEST_DATA)  # guest-data is another user, who may not enter the folder of a role
        creds = self.bus.authority.file(name) if shared else self.bus.files / name / "bus.creds"
        found: Mapping[str, object] = {
            "HOME": self.home / "authority" if name == "authority" else own,
            "NATS_URL": self.nats_url,
            "NATS_CA": self.ca,
            "NATS_REPLICAS": len(SERVERS),
            "LOG_FORMAT": "json",
        }
        login = {} if name == "authority" else {"NATS_CREDS": creds}
        found = {**found, **login, **self._own(name, host, keys), **self.more}
        return {f"NEBULA_{key}": str(value) for key, value in found.items()}

    def _own(self, name: str, host: Host, keys: Path) -> Mapping[str, object]:
        log = {"MASTER_KEY_FILE": keys / "master.key", "EVENT_KEYS_FILE": keys / "event.keys"}
        match name:
            case "authority":
                members = ",".join(f"{each}={self.network.host(each).address}" for each in SERVERS)
                return {
                    "BUS_FILES": self.bus.files,
                    "BUS_RESOLVER": "accounts",
                    "BUS_SERVERS": members,
                    "BUS_SERVER_FILES": ".",
                    "BUS_LOG": self.home / "log" / f"nats-{host.name}.log",
                }
            case "handlers":
                signing_key(keys / "checkpoint.key")
                for file in ("checkpoint.key", "checkpoint.pub"):
                    put(self.home / "hosts" / host.name / name / file, (keys / file).read_bytes())
                signer = self.bus.files / "handlers" / "node-signer"
                return log | {"NODE_KEYS_FILE": keys / "node.keys", "NODE_SIGNER_FILE": signer}
            case "projections":
                return log | {"POSTGRES_DSN": self.pair.dsn(PostgresRole.PROJECTIONS)}
            case "gateway":
                folder = self.home / "hosts" / host.name / "tls"
                folder.mkdir(exist_ok=True)
                ensure_server(folder, ensure_authority(self.ca.parent), [host.address, "127.0.0.1", "localhost"])
                return {
                    "EVENT_KEYS_FILE": keys / "event.keys",
                    "POSTGRES_DSN": self.pair.dsn(PostgresRole.GATEWAY),
                    "HTTP_HOST": host.address,
                    "HTTP_PORT": HTTP_PORT,
                    "TLS_CERT": folder / "server.pem",
                    "TLS_CA": self.ca,
                    "PEPPER_FILE": keys / "pepper.key",
                    "TOKENS_FILE": homes.tokens_file(self.home),
                }
            case "guest-data":
                return {"SEED_HOST": host.address, "SEED_PORT": SEED_PORT}
            case _:
                node_keys = keys / "node.keys"
                return {"SIMULATE": self.simulate, "NODE_KEYS_FILE": node_keys, "SEED_URL": f"{self.seeds}/"}


def names(*, simulated: bool) -> Sequence[str]:
    """The names of all hosts."""
    return [*SERVERS, *([NODES] if simulated else [])]
