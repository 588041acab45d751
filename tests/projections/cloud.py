"""A log with events as the rules make them, without the write side: for the tests of whatever reads the log."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from domain import image, node, project, vm
from domain.base import Command, Rejected
from domain.contract import NodeInfo, NodeReport, Power
from domain.kinds import KINDS
from eventstore.log.envelope import Context, Recorded, Ref
from eventstore.log.store import Change, EventStore
from eventstore.vault.vault import Vault
from projections import database
from projections.database import Pool
from projections.past.keeper import Keeper
from projections.position import Position
from projections.runner import Runner
from runtime.bus import streams
from runtime.bus.quick_client import QuickClient
from runtime.local.servers import NatsServer, Postgres, create_database, start_nats
from runtime.tasks import tasks
from tests.event_keys import put_keys

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIPm7BrCmWzJLJTdaN5UVvVY4O5F5aWzqZ8tcG2cR9u1H"
SSH_KEY = f"ssh-ed25519 {KEY} somebody@somewhere"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Cloud:
    """A log on a server of its own, an empty database, and a vault."""

    nats: NatsServer
    nc: Client
    dsn: str
    vault: Vault
    home: Path
    position: Position = field(default_factory=Position)
    #: what keeps the past of a cloud that is `projected`
    past: Keeper | None = None

    @property
    def store(self) -> EventStore:
        return EventStore(self.nc)

    def runner(self) -> Runner:
        return Runner(self.nc, self.dsn, self.vault, self.position)

    async def do(self, ref: Ref, command: Command, **context: Any) -> list[Recorded]:
        """Decide and append, as handlers would. Raises Rejected."""
        kind = KINDS[ref.kind]
        loaded: Any = await self.store.load(ref, kind.evolve)
        events = kind.decide(loaded.state, command)
        return await self.store.append([Change(loaded.tip, events)], Context(actor="tester", **context))

    def asked(self, **fields: Any) -> dict[str, Any]:
        return {"at": now(), "operation": str(uuid.uuid4()), "fingerprint": "f", **fields}

    async def furnish(self) -> None:
        """A project `default`, an image `base`, a node `host-1`."""
        await self.do(
            Ref("default", "project", "default"),
            project.CreateProject(**self.asked(project="default", name="Default")),
        )
        await self.image("base")
        info = NodeInfo(
            node="host-1",
            region="default",
            vcpus=8,
            memory_mib=8192,
            disk_gib=100,
            virt_type="test",
            seed_url="http://192.0.2.1:8775/",
            version="1",
        )
        await self.do(Ref("system", "node", "host-1"), node.RegisterNode(at=now(), node="host-1", info=info))

    async def image(self, id_: str) -> None:
        ref = Ref("system", "image", id_)
        args = self.asked(image=id_, name="Base", source="/images/base", sha256="0" * 64)
        await self.do(ref, image.RegisterImage(**args))
        seen = image.AcceptImage(
            at=now(),
            image=id_,
            registration=args["operation"],
            format="raw",
            size_bytes=1,
            virtual_size_bytes=1,
        )
        await self.do(ref, seen)

    async def create(self, id_: str | None = None, **more: Any) -> Ref:
        """A VM that was asked for."""
        ref = Ref("default", "vm", id_ or str(uuid.uuid4()))
        spec = vm.Spec(vcpus=1, memory_mib=512, disk_gib=4)
        args = {"name": "web-1", "image": "base", "spec": spec, **more}
        await self.do(ref, vm.CreateVm(**self.asked(vm=ref.id, project="default", **args)))
        return ref

    async def place(self, ref: Ref, node: str = "host-1") -> None:
        await self.do(ref, vm.ScheduleVm(at=now(), vm=ref.id, node=node))

    async def report(self, ref: Ref, power: Power, boots: int = 0, **more: Any) -> None:
        seen = NodeReport(
            vm=ref.id,
            node=more.pop("node", "host-1"),
            epoch=1,
            sequence=time.time_ns(),
            at=now(),
            power=power,
            boots=boots,
            **more,
        )
        await self.do(ref, vm.RecordReport(at=now(), vm=ref.id, report=seen))

    async def running(self, **more: Any) -> Ref:
        """A VM that runs."""
        ref = await self.create(**more)
        await self.place(ref)
        await self.report(ref, Power.ON, 1, addresses=("192.0.2.10",))
        return ref

    async def ask(self, ref: Ref, kind: type[Command], **more: Any) -> str:
        """Ask something of a VM; the operation's id."""
        args = self.asked(vm=ref.id, **more)
        await self.do(ref, kind(**args))
        return str(args["operation"])

    async def caught_up(self) -> int:
        """Wait until the read models are as new as the log."""
        end = await self.store.last_position()
        assert await self.position.reach(end, 30), f"read models stay at {self.position.value} of {end}"
        return end

    async def past_caught_up(self) -> int:
        """Wait until the past is as new as the log, too."""
        end = await self.caught_up()
        assert self.past is not None
        assert await self.past.position.reach(end, 30), f"the past stays at {self.past.position.value} of {end}"
        return end


@asynccontextmanager
async def cloud(home: Path, postgres: Postgres) -> AsyncIterator[Cloud]:
    """A cloud with nothing in it."""
    server = await start_nats(home)
    put_keys(home)  # of a log without MACs, since no handlers write it
    nc = QuickClient()  # as all roles have it
    await nc.connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)  # type: ignore[arg-type]
    await streams.ensure_all(nc.jetstream(), 1)
    dsn = await create_database(postgres, f"test_{uuid.uuid4().hex}")
    vault = Vault.of(nc, home / "master.key")
    try:
        yield Cloud(server, nc, dsn, vault, home)
    finally:
        await nc.close()
        await server.stop()


@asynccontextmanager
async def projected(home: Path, postgres: Postgres) -> AsyncIterator[tuple[Cloud, Pool]]:
    """A furnished cloud whose read models are kept, and a pool to ask them."""
    async with cloud(home, postgres) as made:
        await made.furnish()
        runner = made.runner()
        task = asyncio.create_task(runner.run())
        made.past = Keeper(made.nc, made.dsn, runner)
        past = asyncio.create_task(made.past.run())
        pool = database.pool(made.dsn, "test")
        await pool.open()
        try:
            await made.caught_up()
            yield made, pool
        finally:
            await tasks.end([past, task])
            await pool.close()


__all__ = ["KEY", "SSH_KEY", "Cloud", "Rejected", "cloud", "projected"]
