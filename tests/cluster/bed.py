"""A cluster for tests, and connections to its bus."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from nats.errors import Error as NatsError

from cli.local.cluster.cluster import Cluster
from cli.local.cluster.nats import PORT
from cli.local.cluster.network import Network
from eventstore.log.keyring import Keyring
from eventstore.log.store import EventStore
from runtime import subjects
from runtime.bus import bus, requests
from runtime.settings import Common


@dataclass
class Bed:
    """A cluster that runs, with what looks at it from outside."""

    cluster: Cluster

    @property
    def home(self) -> Path:
        return self.cluster.home

    @property
    def keys(self) -> Keyring:
        return Keyring(self.home / "keys" / "event.keys")

    def settings(self, role: str, server: str | None = None) -> Common:
        """Those of a connection with the credential of a role, to all servers or to one."""
        one = f"tls://{self.cluster.network.host(server).address}:{PORT}" if server else self.cluster.nats_url
        creds = self.cluster.bus.authority.file(role)
        return Common(home=self.home, nats_url=one, nats_ca=self.cluster.ca, nats_creds=creds)

    @asynccontextmanager
    async def connected(self, role: str, server: str | None = None) -> AsyncIterator[bus.Connection]:
        nc = await bus.connect(self.settings(role, server), f"tests-{role}", silent=True)
        try:
            yield nc
        finally:
            await nc.close()

    async def leader(self, stream: str = subjects.EVENTS) -> str:
        """The name of the server that leads a stream; empty if there is none."""
        async with self.connected("handlers") as nc:
            try:
                answer = json.loads((await nc.request(f"$JS.nebula.API.STREAM.INFO.{stream}", b"", timeout=2)).data)
            except (NatsError, OSError):
                return ""
        return str((answer.get("cluster") or {}).get("leader") or "")

    async def decides(self) -> bool:
        """Whether handlers decide commands."""
        async with self.connected("gateway") as nc:
            try:
                body = json.dumps({"args": {}, "context": {"actor": "tests"}}).encode()
                reply = await requests.ask(
                    nc, subjects.command("system", "health", "check"), body, requests.Patience(one_try=2)
                )
            except requests.Unanswered:
                return False
        return b'"ok"' in reply.data

    def store(self, nc: bus.Connection) -> EventStore:
        return EventStore(nc, self.keys, timeout=20)


@asynccontextmanager
async def bed(
    home: Path, network: Network, places: Mapping[str, Sequence[str]], *, simulate: int = 0, **more: str
) -> AsyncIterator[Bed]:
    """Start a cluster. It may not be ready yet."""
    cluster = Cluster(home, network, simulate, more, places)
    try:
        await cluster.start()
        yield Bed(cluster)
    finally:
        await cluster.stop()
