"""What `nebula up` does for a bus with accounts while it runs: new credentials, revocations, a look at its disk, and
records of what it refuses.

It is the only process with the keys of the bus. Handlers ask it to revoke a node's credential.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from nats.errors import Error as NatsError

from cli.local.bus_refusals import BusRefusals
from cli.local.local_node import LocalNode
from cli.local.maintenance import MaintenanceRecords
from cli.local.progress import say
from runtime.bus import bus, streams
from runtime.bus.accounts import revoking
from runtime.bus.accounts.authority import WITH_FILE, Authority
from runtime.bus.accounts.table import A_NODE, AUTHORITY, ROLES, SIMULATION, SYSTEM
from runtime.local.adopt import in_account
from runtime.local.full_disk import failed_write
from runtime.local.servers import NatsServer
from runtime.node_keys import NodeKeys
from runtime.settings import Common
from runtime.tasks.patience import CannotRun

#: Seconds between two looks at the credentials. They are renewed ten days before they expire.
LOOK_SECONDS = 60.0
#: The subject on which a server tells whether it can store.
HEALTH = "$SYS.REQ.SERVER.PING.HEALTHZ"
#: Seconds to wait for that answer.
HEALTH_SECONDS = 5.0


def settled(home: Path) -> bool:
    """Whether the bus of a home has had accounts. Without them its server would show an empty log."""
    return (home / "bus" / "keys").exists() or in_account(home / "nats")


@dataclass
class Accounts:
    """The authority of a home, with its connections once the server runs. `node`: the node of this host, if any.
    `simulated`: nodes are simulated.
    """

    authority: Authority
    node: LocalNode | None = None
    simulated: bool = False
    system: bus.Connection | None = None
    refusals: BusRefusals | None = None
    maintenance: MaintenanceRecords | None = None

    async def write_error(self, _: NatsServer) -> str | None:
        """The server's error about a stream that it cannot write; None if it reports none, or does not answer."""
        if self.system is None or not self.system.is_connected:
            return None
        try:
            answer = await self.system.request(HEALTH, b'{"details": true}', timeout=HEALTH_SECONDS)
            document = json.loads(answer.data)
        except (NatsError, OSError, TimeoutError, ValueError):
            return None
        return failed_write(document.get("data") if isinstance(document, dict) else None)

    def file(self, role: str) -> Path:
        """The file with the credential of a role, or of the node of this host."""
        if role != A_NODE:
            return self.authority.file(role)
        return self.node.files.creds if self.node is not None else self.authority.file(SIMULATION)

    def prepare(self, keys: NodeKeys) -> None:
        """Prepare the files before the bus is started. Raises ServerError, OSError, CannotRun."""
        if not self.simulated:
            self.authority.end(self.authority.file(SIMULATION), ROLES[SIMULATION].account)
        if self.node is not None:
            self.node.prepare(keys)
        self.renew()

    def renew(self) -> None:
        """Renew what expires soon. Raises OSError."""
        for role in WITH_FILE:
            self.authority.renew(role)
        if self.simulated:
            self.authority.renew(SIMULATION)
        if self.node is not None:
            self.node.renew()

    async def keep(self) -> None:
        """Renew credentials, for ever. Processes read their file again when they connect again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(self.renew)
            except (OSError, CannotRun) as error:  # such as a full disk; there are days left
                say(f"{'nats':<12} credentials are not renewed: {error}")

    def tasks(self) -> Iterator[tuple[str, Coroutine[None, None, None]]]:
        """What has to run for ever beside the server, with its name for people."""
        assert self.refusals is not None and self.maintenance is not None
        yield "credentials", self.keep()
        yield "refusals of the bus", self.refusals.run()
        yield "maintenance of the bus", self.maintenance.run()

    @asynccontextmanager
    async def serving(self, settings: Common, log: Path | None) -> AsyncIterator[list[bus.Connection]]:
        """Answer requests to revoke. `settings`: those of a connection to the bus; `log`: of the server, if it can be
        read here. Raises CannotRun.
        """
        async with AsyncExitStack() as stack:
            connections = []
            for role in (SYSTEM, AUTHORITY):
                mine = settings.model_copy(update={"nats_creds": self.authority.file(role)})
                connection = await bus.connect(mine, f"up-{role}", silent=True)
                stack.push_async_callback(connection.close)
                connections.append(connection)
            self.system, answering = connections
            await revoking.serve(answering, self.system, self.authority)
            adapting = asyncio.create_task(streams.adapt(answering.jetstream()))
            stack.callback(adapting.cancel)
            self.refusals = BusRefusals(answering, self.system, log)
            await self.refusals.listen()
            self.maintenance = MaintenanceRecords(answering)
            await self.maintenance.listen()
            yield connections
