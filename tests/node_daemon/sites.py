"""Hosts on which daemons are killed: a simulated one, and one with QEMU."""

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domain.base import Resources
from domain.contract import Desired, ImageSource, NodeReport, Power, SeedMedium, Wanted
from domain.contract.wanted import Rescue
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import DOMAIN, stored_domains
from tests.node_daemon.acts import ORDERS, SIMULATED, Orders, Stop
from tests.node_daemon.documents import boot_disk, source_of, wanted
from tests.node_daemon.harness import Node
from tests.waiting import eventually

#: Where a VM is to be in rescue, its disk for that is made from the image of this number.
OF_RESCUE = 99

Change = Mapping[str, Any]
"""What the next document of a VM says that the last did not."""


@dataclass(frozen=True)
class Disk:
    image: str
    bytes: int


@dataclass(frozen=True)
class Left:
    """What there is of a VM on its host."""

    power: Power
    boots: int
    disk: int
    size: Resources | None
    persistent: bool
    disks: Mapping[str, Disk]
    #: other files beside them
    others: set[str]
    console: bool


class Site(ABC):
    """A host, its daemon's processes, and what they leave behind."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.notes = node.home / "notes"
        self.seed_url = "http://192.168.122.1:8775/seed/secret/"
        #: which of its VM's disks is made from the image of that checksum
        self._images: dict[str, str] = {}

    @abstractmethod
    async def look(self, vm: str) -> Have: ...

    def content(self) -> bytes:
        """What all images begin with."""
        return b""

    def orders(self, stops: dict[str, Stop]) -> Orders:
        return Orders(self.notes, stops)

    def daemon(self, stops: dict[str, Stop] | None = None) -> Any:
        """A daemon that dies when all VMs have got to their stops."""
        orders = self.node.home / "orders.json"
        orders.write_bytes(ORDERS.dump_json(self.orders(stops or {})))
        return self.node.process("tests.node_daemon.acts", str(orders))

    def acts(self, vm: str, what: str) -> list[str]:
        """What was done to a VM (`what`: begins or done), in order."""
        lines = [line.split(",") for line in self.notes.read_text().splitlines()] if self.notes.exists() else []
        return [name for who, name, which in lines if (who, which) == (vm, what)]

    def image(self, vm: str, disk: int) -> ImageSource:
        """An image that no other disk is made from: nobody waits for anybody."""
        path = self.node.home / f"{vm}-{disk}.raw"
        path.write_bytes(self.content() + path.name.encode().ljust(512))
        source = source_of(path, "raw", path.stat().st_size)
        self._images[source.sha256] = f"image {disk}"
        return source

    async def want(self, vm: str, change: Change) -> None:
        """The next document of a VM; its first is that of a new one."""
        if vm not in self.node.documents:
            image = self.image(vm, 1)
            if "seed" in change:
                image = image.model_copy(update={"seed": SeedMedium.DISK})
            await self.node.want(wanted(vm, node=self.node.settings.node, image=image, seed_url=self.seed_url))
            return
        changes = {"force_after": None, "resume": False, **change}
        if changes["force_after"] is not None:
            changes["force_after"] += datetime.now(UTC)
        if "disk" in changes:
            changes["image"] = self.image(vm, changes["disk"])
        if changes.get("rescue") is not None:
            changes["rescue"] = Rescue(image=self.image(vm, OF_RESCUE), disk=changes["rescue"])
        await self.node.change(vm, **changes)

    async def settled(self, vm: str) -> Left:
        """What there is of a VM, once it is as wanted and would stay so."""
        want = self.node.documents[vm]
        await self.node.until(vm, lambda report: told(want, report), "as wanted")

        async def left() -> Left | None:
            found = await self.left(vm)
            return found if found.persistent else None

        found: Left = await eventually(left, "kept")
        return found

    async def left(self, vm: str) -> Left:
        have = await self.look(vm)
        disks = {path.name: self._disk(path) for path in self.node.disks.glob(f"{vm}/*") if path.suffix == ".qcow2"}
        others = {path.name for path in self.node.disks.glob(f"{vm}/*")} - disks.keys()
        console = any((self.node.settings.data_dir / "consoles").glob(f"{vm}*"))
        return Left(have.power, have.boots, have.disk, have.size, have.persistent, disks, others, console)

    def _disk(self, path: Path) -> Disk:
        """What the header of a qcow2 says."""
        header = path.read_bytes()[:4096]
        offset, length, _, size = struct.unpack(">QIIQ", header[8:32])
        return Disk(self._images[Path(header[offset : offset + length].decode()).stem], size)


def told(want: Wanted, report: NodeReport) -> bool:
    """Whether a report says that the VM is as wanted."""
    if report.error is not None or (report.desired, report.asked_boots) != (want.desired, want.boots):
        return False
    if want.desired is Desired.ON:
        return report.power is Power.ON and report.boots == want.boots
    return report.power == want.desired.value and report.step is None


class Simulated(Site):
    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self._file = node.home / "hosts.sqlite"
        self._host_store = HostStore(self._file)

    def orders(self, stops: dict[str, Stop]) -> Orders:
        return Orders(self.notes, stops, self._file)

    async def look(self, vm: str) -> Have:
        """From a host_store with this VM alone: to read all of them takes long."""
        body = self._host_store.all(SIMULATED, DOMAIN).get(vm)
        with closing(HostStore()) as host_store:
            if body is not None:
                host_store.put(SIMULATED, DOMAIN, vm, body)
            return stored_domains(host_store, SIMULATED).get(vm) or Have(vm, Power.ABSENT)


class OnQemu(Site):
    def __init__(self, node: Node, hypervisor: LibvirtHypervisor) -> None:
        super().__init__(node)
        self.hypervisor = hypervisor

    async def look(self, vm: str) -> Have:
        return await self.hypervisor.look(vm)

    def content(self) -> bytes:
        return boot_disk()
