"""One node on a real bus: documents in, reports out, with the daemon in this process or in one of its own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.contract import Desired, Heartbeat, NodeReport, Power, RefusedDocument, Wanted
from node_daemon.hypervisor.hypervisor import Hypervisor
from node_daemon.reconcile.daemon import Daemon
from node_daemon.reconcile.executor import Executor
from node_daemon.reconcile.host import this_host
from node_daemon.reconcile.plan import Host
from node_daemon.storage.disks import Disks
from node_daemon.storage.storage import DiskStore, ImageStore
from runtime import subjects
from runtime.bus import bus
from runtime.bus.streams import ensure_all
from runtime.settings import NodeSettings
from tests.image_server import Images
from tests.node_daemon.documents import new_vm, raw_image, wanted
from tests.waiting import eventually

SECONDS = 60.0
ROOT = Path(__file__).parents[2]
#: libvirt's own test driver.
URI = "test:///default"


def on(report: NodeReport) -> bool:
    return report.power is Power.ON


def paused(report: NodeReport) -> bool:
    return report.power is Power.PAUSED and report.step is None


def suspended(report: NodeReport) -> bool:
    return report.power is Power.SUSPENDED and report.step is None


def off(report: NodeReport) -> bool:
    return report.power is Power.OFF and report.step is None


def gone(report: NodeReport) -> bool:
    return report.power is Power.ABSENT and report.step is None and report.error is None


def failed(report: NodeReport) -> bool:
    return report.error is not None


@dataclass
class Node:
    """`reports` holds every report by VM, in order of arrival; `refused` the newest of other kinds, by kind and id."""

    home: Path
    settings: NodeSettings
    client: Client
    reports: dict[str, list[NodeReport]] = field(default_factory=dict)
    refused: dict[tuple[str, str], RefusedDocument] = field(default_factory=dict)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    registrations: list[dict[str, Any]] = field(default_factory=list)
    refusals: int = 0
    lease: int = 0
    documents: dict[str, Wanted] = field(default_factory=dict)

    @property
    def disks(self) -> Path:
        return self.settings.data_dir / "disks"

    async def create(self, **changes: Any) -> str:
        """Want a new VM; its id."""
        vm = new_vm()
        image = changes.pop("image", None) or raw_image(self.home / "base.raw")
        await self.want(wanted(vm, node=self.settings.node, image=image, **changes))
        return vm

    async def change(self, vm: str, **changes: Any) -> None:
        """Publish the next generation of a VM's document."""
        known = self.documents[vm]
        await self.want(known.model_copy(update={"generation": known.generation + 1, **changes}))

    async def want(self, document: Wanted) -> None:
        self.documents[document.vm] = document
        subject = subjects.wanted(self.settings.node, "vm", document.vm)
        await self.client.jetstream().publish(subject, document.model_dump_json().encode())

    async def until(self, vm: str, check: Callable[[NodeReport], bool], what: str = "a report") -> NodeReport:
        """The newest report of a VM, once it passes the check."""

        def newest() -> NodeReport | None:
            reports = self.reports.get(vm)
            return reports[-1] if reports and check(reports[-1]) else None

        try:
            report: NodeReport = await eventually(newest, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; reports: {self.reports.get(vm)}") from None
        return report

    async def remove(self, *vms: str) -> None:
        for vm in vms:
            await self.change(vm, desired=Desired.ABSENT)
        for vm in vms:
            await self.until(vm, gone, "absent")

    @asynccontextmanager
    async def daemon(
        self,
        hypervisor: Hypervisor,
        images: ImageStore | None = None,
        disks: DiskStore | None = None,
        host: Host | None = None,
    ) -> AsyncIterator[Daemon]:
        """A daemon in this process; leaving ends it as a crash would, between two awaits."""
        host = host or this_host()
        images = images or Images(self.settings.data_dir / "images", self.settings.image_folders)
        disks = disks or Disks(self.settings.data_dir)
        executor = Executor(hypervisor, images, disks, host, self.settings.parallel_starts)
        connection = await bus.connect(self.settings, "node")
        daemon = Daemon(self.settings, connection, hypervisor, executor, host)
        task = asyncio.create_task(daemon.run())
        try:
            yield daemon
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await connection.close()

    @asynccontextmanager
    async def process(self, *program: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A daemon in a process of its own, run by `program` with its arguments; leaving kills it."""
        environment = {
            f"NEBULA_{name.upper()}": str(value) for name, value in self.settings.model_dump(exclude_none=True).items()
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *(program or ("cli.local.role", "node")), cwd=ROOT, env={**os.environ, **environment}
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()

    async def _report(self, message: Msg) -> None:
        _, kind, id_ = subjects.parse_report(message.subject)
        if kind != "vm":
            self.refused[kind, id_] = RefusedDocument.model_validate_json(message.data)
            return
        report = NodeReport.model_validate_json(message.data)
        self.reports.setdefault(report.vm, []).append(report)

    async def _heartbeat(self, message: Msg) -> None:
        self.heartbeats.append(Heartbeat.model_validate_json(message.data))

    async def _register(self, message: Msg) -> None:
        if self.refusals:
            self.refusals -= 1
            await message.respond(b'{"problem": {"code": "not_now", "status": 503, "detail": "ask again"}}')
            return
        request = json.loads(message.data)
        if request["daemon"]["boot"] not in (one["daemon"]["boot"] for one in self.registrations):
            self.lease += 1
        self.registrations.append(request)
        await message.respond(json.dumps({"ok": {"lease": self.lease}}).encode())


@asynccontextmanager
async def a_node(home: Path, nats_url: str, uri: str, **settings: Any) -> AsyncIterator[Node]:
    """A node of its own name, that shares the bus with others."""
    name = f"n{uuid.uuid4().hex[:8]}"
    folder = home / name
    folder.mkdir()
    folder.chmod(0o755)
    values: dict[str, Any] = {"resync_seconds": 0.2, "heartbeat_seconds": 0.1, "libvirt_deadline": 60, **settings}
    values.setdefault("image_paths", str(folder))
    values.setdefault("image_hosts", "127.0.0.1")  # where tests serve images
    node_settings = NodeSettings(home=folder, nats_url=nats_url, node=name, libvirt_uri=uri, **values)
    client = await nats.connect(nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    await ensure_all(client.jetstream(), 1)
    node = Node(folder, node_settings, client)
    await client.subscribe(subjects.reports_of(name), cb=node._report)
    await client.subscribe(subjects.heartbeat(name), cb=node._heartbeat)
    await client.subscribe(subjects.register(name), cb=node._register)
    try:
        yield node
    finally:
        await client.close()


def files_of(node: Node) -> list[Path]:
    return [path for folder in ("disks", "consoles") for path in (node.settings.data_dir / folder).iterdir()]
