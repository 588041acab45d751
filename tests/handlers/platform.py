"""A handlers process on a real server, and a node that answers by hand: for the tests of the write side."""

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from nats.aio.client import Client
from nats.errors import NoRespondersError, TimeoutError as NatsTimeout

from domain.contract import VM_FEATURES, Daemon, Heartbeat, Introduction, Leaving, NodeInfo, NodeReport, Power, Wanted
from eventstore.documents import Documents
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.keyring import Keyring
from eventstore.log.store import EventStore
from eventstore.parking.parking import REPORTS
from handlers.queues.queues import consumer_name
from runtime import subjects
from runtime.bus.quick_client import QuickClient
from runtime.local.servers import NatsServer, start_nats
from tests.event_keys import put_keys
from tests.waiting import eventually


def daemon(name: str, boot: str = "b", identity: str = "i") -> Daemon:
    """The daemon of a node, in these tests."""
    return Daemon(boot=f"{boot}-{name}", identity=f"{identity}-{name}", host="tests", pid=1)


#: What the senders of commands vouch for.
OPERATOR = [["operator", None]]


@dataclass
class WriteSide:
    home: Path
    nats: NatsServer
    nc: Client
    settings: dict[str, str] = field(default_factory=dict)
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    leases: dict[str, int] = field(default_factory=dict)
    began: int = field(default_factory=time.monotonic_ns)
    output: IO[bytes] | None = None
    """Where the process logs of handlers go; None: to the output of the tests."""

    @property
    def store(self) -> EventStore:
        """The log, with the keys that the handlers have made."""
        return EventStore(self.nc, Keyring(self.home / "event.keys"))

    async def start(self) -> asyncio.subprocess.Process:
        env = {
            **os.environ,
            "NEBULA_HOME": str(self.home),
            "NEBULA_NATS_URL": self.nats.url,
            "NEBULA_NODE_TIMEOUT": "1",
            "NEBULA_IMAGE_HOSTS": "127.0.0.1",
            "NEBULA_IMAGE_PATHS": str(self.home),
            **self.settings,
        }
        command = [sys.executable, "-m", "cli.local.role", "handlers"]
        process = await asyncio.create_subprocess_exec(*command, env=env, stderr=self.output)
        self.processes.append(process)
        await eventually(self.answers, "handlers answer")
        return process

    async def answers(self) -> bool:
        try:
            reply = await self.ask("system", "none", "none", {})
        except (NoRespondersError, TimeoutError):
            return False
        return "problem" in reply

    async def ask(self, project: str, kind: str, verb: str, args: dict[str, Any], **caller: Any) -> dict[str, Any]:
        context = {
            "actor": "tester",
            "grants": OPERATOR,
            "operation": caller.pop("operation", str(uuid.uuid4())),
            "fingerprint": caller.pop("fingerprint", "same"),
            **caller,
        }
        body = json.dumps({"args": args, "context": context}).encode()
        reply = await self.nc.request(subjects.command(project, kind, verb), body, timeout=10)
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def decided(self, project: str, kind: str, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        """The answer to a command, asked again as the same operation while handlers are too busy to decide it."""
        operation = str(uuid.uuid4())
        while True:
            with contextlib.suppress(NatsTimeout):
                answer = await self.ask(project, kind, verb, args, operation=operation)
                if answer.get("problem", {}).get("status") != 503:
                    return answer
            await asyncio.sleep(0.1)

    async def ok(self, project: str, kind: str, verb: str, args: dict[str, Any], **caller: Any) -> dict[str, Any]:
        answer = await self.ask(project, kind, verb, args, **caller)
        assert "ok" in answer, answer
        found: dict[str, Any] = answer["ok"]
        return found

    async def events(self, project: str, kind: str, id_: str) -> list[Recorded]:
        return await self.store.history(Ref(project, kind, id_))

    async def types(self, project: str, kind: str, id_: str) -> list[str]:
        return [e.type.rsplit(".", 1)[-1] for e in await self.events(project, kind, id_)]

    async def wanted(self, vm: str) -> Wanted | None:
        for document in await Documents(self.nc, subjects.WANTED).all(subjects.wanted_of()):
            found = Wanted.model_validate_json(document.body)
            if found.vm == vm:
                return found
        return None

    async def report(self, doc: Wanted, power: Power, **more: Any) -> None:
        report = NodeReport(
            vm=doc.vm,
            node=doc.node,
            epoch=doc.epoch,
            lease=more.pop("lease", self.leases.get(doc.node, 0)),
            sequence=more.pop("sequence", time.monotonic_ns() - self.began),
            at=datetime.now(UTC),
            power=power,
            **more,
        )
        await self.nc.jetstream().publish(subjects.report(doc.node, "vm", doc.vm), report.model_dump_json().encode())

    async def node(self, name: str, who: Mapping[str, str] = MappingProxyType({}), **capacity: Any) -> None:
        """Register a node. `who`: boot and identity of its daemon, where it is another one."""
        info = NodeInfo(
            node=name,
            region=capacity.pop("region", "default"),
            vcpus=capacity.pop("vcpus", 4),
            memory_mib=capacity.pop("memory_mib", 4096),
            disk_gib=capacity.pop("disk_gib", 100),
            virt_type="test",
            seed_url="http://192.0.2.1:8775/",
            version="0",
            features=capacity.pop("features", tuple(sorted(VM_FEATURES))),
        )
        granted = await self.register(Introduction(info=info, daemon=daemon(name, **who)))
        self.leases[name] = granted["ok"]["lease"]

    async def leave(self, name: str, boot: str = "b") -> None:
        """The daemon of a node ends, and gives the lease back."""
        body = Leaving(boot=daemon(name, boot).boot).model_dump_json().encode()
        assert "ok" in json.loads((await self.nc.request(subjects.leave(name), body, timeout=10)).data)

    async def judged(self) -> None:
        """Wait until no report is left to be judged."""

        async def none() -> bool:
            info = await self.nc.jetstream().consumer_info(subjects.REPORTS, consumer_name(REPORTS))
            return not info.num_pending and not info.num_ack_pending

        await eventually(none, "all reports are judged")

    async def register(self, said: Introduction, node: str | None = None) -> dict[str, Any]:
        """What handlers answer to a daemon that introduces itself, on the subject of its node or of another one."""
        subject = subjects.register(node or said.info.node)
        reply = await self.nc.request(subject, said.model_dump_json().encode(), timeout=10)
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def heartbeat(self, name: str, *, ahead: float = 0) -> None:
        """A sign of life of a node whose clock is so many seconds ahead."""
        at = datetime.now(UTC) + timedelta(seconds=ahead)
        beat = Heartbeat(node=name, at=at, boot=daemon(name).boot, wanted_position=0, lease=self.leases.get(name, 1))
        await self.nc.publish(subjects.heartbeat(name), beat.model_dump_json().encode())

    async def heartbeats(self, *names: str) -> None:
        """Keep nodes alive until cancelled."""
        while True:
            for name in names:
                await self.heartbeat(name)
            await asyncio.sleep(0.2)

    async def cloud(self, image: bytes | None = None) -> None:
        """A project `default` and an available image `base`."""
        body = image if image is not None else raw_disk()
        path = self.home / "base.raw"
        path.write_bytes(body)
        await self.ok("default", "project", "create", {"project": "default", "name": "Default"})
        digest = hashlib.sha256(body).hexdigest()
        args = {"image": "base", "name": "Base", "source": str(path), "sha256": digest}
        await self.ok("system", "image", "register", args)
        await eventually(lambda: self.has("system", "image", "base", "ImageVerified"), "image verified")

    async def has(self, project: str, kind: str, id_: str, type_: str, times: int = 1) -> bool:
        return (await self.types(project, kind, id_)).count(type_) >= times

    def vm_args(self, vm: str, **more: Any) -> dict[str, Any]:
        spec = more.pop("spec", {"vcpus": 1, "memory_mib": 512, "disk_gib": 4})
        return {"vm": vm, "name": "web", "image": "base", "spec": spec, **more}

    async def create(self, vm: str | None = None, **more: Any) -> str:
        vm = vm or str(uuid.uuid4())
        await self.ok("default", "vm", "create", self.vm_args(vm, **more))
        return vm

    async def stop_all(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        self.processes.clear()


def raw_disk(size: int = 1024 * 1024) -> bytes:
    """The smallest thing that counts as a bootable disk."""
    return b"\0" * 510 + b"\x55\xaa" + b"\0" * (size - 512)


@asynccontextmanager
async def write_side(home: Path, **settings: str) -> AsyncIterator[WriteSide]:
    server = await start_nats(home)
    nc = QuickClient()  # as all roles: it reads what the others may have written
    await nc.connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)  # type: ignore[arg-type]
    if not (home / "event.keys").exists():
        put_keys(home, since=0)  # handlers make it at their first start, but some tests append before
    side = WriteSide(home, server, nc, settings)
    try:
        yield side
    finally:
        await side.stop_all()
        await nc.close()
        await server.stop()
