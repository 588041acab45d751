"""A real guest behind the tests' platform: a VM of its log, run by QEMU, on a node that answers for its consoles."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from domain.contract import Power
from node_daemon.asks.answers import Answers
from node_daemon.hypervisor.hypervisor import Boot
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.storage.disks import Disks
from runtime.images.qemu_img import qemu_img
from runtime.tasks.tasks import end
from tests.gateway.platform import VMS, Platform
from tests.node_daemon.echo import write_disk
from tests.waiting import eventually

NODE = "host-1"


@dataclass
class Guest:
    """`vm` runs, and sends back what it is told in upper case. `node` is what answers for it."""

    api: Platform
    vm: str
    hypervisor: LibvirtHypervisor
    disks: Disks
    answers: Answers
    node: asyncio.Task[None]

    def connect(self, kind: str = "console", query: str = "", **more: object) -> connect:
        url = f"ws{self.api.url.removeprefix('http')}{VMS}/{self.vm}/{kind}{query}"
        return connect(url, compression=None, proxy=None, **{"subprotocols": ["binary"], **more})  # type: ignore[arg-type]

    async def restart_node(self) -> None:
        await end([self.node])
        self.answers = Answers(self.api.side.nc, NODE, self.disks, self.hypervisor)
        self.node = asyncio.create_task(self.answers.serve())


@asynccontextmanager
async def a_guest(api: Platform, home: Path) -> AsyncIterator[Guest]:
    folder = home / f"guest-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    hypervisor = LibvirtHypervisor("qemu:///system", "default", "qemu", deadline=60)
    disks = Disks(folder)
    answers = Answers(api.side.nc, NODE, disks, hypervisor)
    vm = (await api.create(name="echo"))["vm"]["id"]
    want = await eventually(lambda: api.side.wanted(vm), "wanted document")
    base = write_disk(folder / "echo.raw")
    disk = folder / f"{vm}.qcow2"
    await qemu_img("create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(disk))
    want = want.model_copy(update={"memory_mib": 64})
    await hypervisor.start(Boot(want, str(disk), str(base), "raw", str(disks.console(vm)), "host-boot"))
    guest = Guest(api, vm, hypervisor, disks, answers, asyncio.create_task(answers.serve()))
    try:
        await hypervisor.persist(vm)
        await api.report(vm, Power.ON, boots=1)

        async def runs() -> bool:
            return bool((await api.get(f"{VMS}/{vm}"))["phase"] == "running")

        await eventually(runs, "running")
        yield guest
    finally:
        await end([guest.node])
        await hypervisor.destroy(vm)
        await hypervisor.undefine(vm)
        hypervisor.close()


async def speaks(socket: ClientConnection) -> None:
    """Ask until it answers: a guest that is still booting hears nothing."""
    answered = asyncio.create_task(until(socket, b"HELLO"))
    while not answered.done():
        await socket.send(b"hello")
        await asyncio.wait({answered}, timeout=0.2)
    await answered


async def until(socket: ClientConnection, expected: bytes, seconds: float = 30) -> bytes:
    """All that comes, up to what is expected."""
    data = b""
    async with asyncio.timeout(seconds):
        while expected not in data:
            piece = await socket.recv()
            data += piece.encode() if isinstance(piece, str) else piece
    return data
