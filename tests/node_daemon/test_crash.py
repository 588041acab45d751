"""The daemon, or libvirtd, is killed before and after every act of every operation: what was begun is finished.

One death is many: each VM has been brought to another act when the process is killed. What there is in the end is what
there is without a death, and no guest was started, stopped, paused or thrown away once more because of it.
"""

import asyncio
import signal
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.base import Resources
from domain.contract import Desired, ImageSource, NodeReport, Power, SeedMedium, Wanted
from node_daemon.domain_xml import domain_name
from node_daemon.hypervisor import Have
from node_daemon.libvirt_adapter import LibvirtHypervisor
from node_daemon.shelf import Shelf
from node_daemon.simulated_host import remembered
from runtime.libvirtd import Libvirt
from runtime.servers import NatsServer
from tests.node_daemon.acts import ON_DOMAINS, ORDERS, SIMULATED, Acting, Acts, Orders, Stop
from tests.node_daemon.data_source import a_data_source
from tests.node_daemon.documents import boot_disk, new_vm, source_of, wanted
from tests.node_daemon.harness import Node, a_node
from tests.node_daemon.own_libvirt import OwnLibvirt, own_libvirt
from tests.waiting import eventually

Change = Mapping[str, Any]

ON, OFF, ABSENT = {"desired": Desired.ON}, {"desired": Desired.OFF}, {"desired": Desired.ABSENT}
PAUSED, SUSPENDED = {"desired": Desired.PAUSED}, {"desired": Desired.SUSPENDED}
GENTLY = {"force_after": timedelta(minutes=5)}
RESUME = {**ON, "resume": True}
RESTART = {**ON, "boots": 2}
SEEDED = {**ON, "seed": True}
REBUILD = {**RESTART, "disk": 2}
LARGER = {**RESTART, "vcpus": 2, "memory_mib": 128, "disk_gib": 2}

#: What is wanted of a VM, one after the other. The daemon dies while it follows the last.
LIVES: Mapping[str, tuple[Change, ...]] = {
    "create": (ON,),
    "stop": (ON, OFF | GENTLY),
    "stop by force": (ON, OFF),
    "rebuild": (ON, REBUILD),
    "delete": (ON, ABSENT),
}
MORE_LIVES: Mapping[str, tuple[Change, ...]] = {
    **LIVES,
    "create with a seed disk": (SEEDED,),
    "restart with a seed disk": (SEEDED, RESTART),
    "restart": (ON, RESTART | GENTLY),
    "restart by force": (ON, RESTART),
    "resize and restart": (ON, LARGER),
    "resize and start": (ON, OFF, LARGER),
    "pause": (ON, PAUSED),
    "resume": (ON, PAUSED, RESUME),
    "suspend": (ON, SUSPENDED),
    "suspend paused": (ON, PAUSED, SUSPENDED),
    "restore": (ON, SUSPENDED, RESUME),
    "restore and pause": (ON, SUSPENDED, PAUSED),
    "stop suspended": (ON, SUSPENDED, OFF | GENTLY),
    "stop suspended by force": (ON, SUSPENDED, OFF),
    "rebuild suspended": (ON, SUSPENDED, REBUILD),
    "rebuild off": (ON, OFF, REBUILD),
    "rebuild larger": (ON, {**REBUILD, "disk_gib": 2}),
    "delete paused": (ON, PAUSED, ABSENT),
    "delete suspended": (ON, SUSPENDED, ABSENT),
    "delete off": (ON, OFF, ABSENT),
}
#: What a guest notices, or would miss.
ON_GUESTS = {"start", "pause", "unpause", "suspend", "restore", "discard", "destroy"}


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
    kept: bool
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
        await self.node.change(vm, **changes)

    async def settled(self, vm: str) -> Left:
        """What there is of a VM, once it is as wanted and would stay so."""
        want = self.node.documents[vm]
        await self.node.until(vm, lambda report: told(want, report), "as wanted")

        async def left() -> Left | None:
            found = await self.left(vm)
            return found if found.kept else None

        found: Left = await eventually(left, "kept")
        return found

    async def left(self, vm: str) -> Left:
        have = await self.look(vm)
        disks = {path.name: self._disk(path) for path in self.node.disks.glob(f"{vm}/*") if path.suffix == ".qcow2"}
        others = {path.name for path in self.node.disks.glob(f"{vm}/*")} - disks.keys()
        console = any((self.node.settings.data_dir / "consoles").glob(f"{vm}*"))
        return Left(have.power, have.boots, have.disk, have.size, have.kept, disks, others, console)

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


class Only:
    """A shelf, as far as one VM goes: to read it all takes long."""

    def __init__(self, shelf: Shelf, vm: str) -> None:
        self._shelf = shelf
        self._vm = vm

    def all(self, node: str, kind: str) -> dict[str, str]:
        found = self._shelf.all(node, kind)
        return {self._vm: found[self._vm]} if self._vm in found else {}


class Simulated(Site):
    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self._file = node.home / "hosts.sqlite"
        self._shelf = Shelf(self._file)

    def orders(self, stops: dict[str, Stop]) -> Orders:
        return Orders(self.notes, stops, self._file)

    async def look(self, vm: str) -> Have:
        return remembered(Only(self._shelf, vm), SIMULATED).get(vm) or Have(vm, Power.ABSENT)


class OnQemu(Site):
    def __init__(self, node: Node, hypervisor: LibvirtHypervisor) -> None:
        super().__init__(node)
        self.hypervisor = hypervisor

    async def look(self, vm: str) -> Have:
        return await self.hypervisor.look(vm)

    def content(self) -> bytes:
        return boot_disk()


@pytest.fixture
async def simulated(servers_home: Path, nats_server: NatsServer) -> AsyncIterator[Site]:
    async with a_node(servers_home, nats_server.url, "test:///simulated") as node, a_data_source() as source:
        site = Simulated(node)
        site.seed_url = source.url()
        yield site


@pytest.fixture(scope="module")
async def own(servers_home: Path, libvirt_qemu: Libvirt) -> AsyncIterator[OwnLibvirt]:
    async with own_libvirt(servers_home / "libvirt") as own:
        yield own


@asynccontextmanager
async def site_on(own: OwnLibvirt, home: Path, nats: NatsServer) -> AsyncIterator[OnQemu]:
    hypervisor = LibvirtHypervisor(own.uri, "default", "qemu", deadline=60)
    async with a_node(home, nats.url, own.uri) as node:
        yield OnQemu(node, hypervisor)
    hypervisor.close()


@pytest.fixture
async def on_qemu(own: OwnLibvirt, servers_home: Path, nats_server: NatsServer) -> AsyncIterator[OnQemu]:
    async with site_on(own, servers_home, nats_server) as site:
        yield site


@dataclass(frozen=True)
class Model:
    """A life without a death: the acts on the way to the last document, and what there is then."""

    name: str
    life: tuple[Change, ...]
    acts: list[str]
    left: Left

    def runs_on_from(self, stop: Stop) -> bool:
        """Whether the guest that runs at an act on its domain is the one that is left."""
        acts = [act for act in self.acts if act in ON_DOMAINS]
        to_come = acts[stop.number - 1 if stop.before else stop.number :]
        return self.left.power is Power.ON and not {"start", "restore", "destroy"} & set(to_come)


def on_guest(acts: list[str]) -> Counter[str]:
    return Counter(act for act in acts if act in ON_GUESTS)


async def rehearse(site: Site, name: str, life: tuple[Change, ...]) -> Model:
    vm = new_vm()
    await prepare(site, vm, life)
    known = len(site.acts(vm, "begins"))
    await site.want(vm, life[-1])
    left = await site.settled(vm)
    return Model(name, life, site.acts(vm, "begins")[known:], left)


async def prepare(site: Site, vm: str, life: tuple[Change, ...]) -> None:
    """All documents but the last."""
    for change in life[:-1]:
        await site.want(vm, change)
        await site.settled(vm)


async def rehearsals(site: Site, lives: Mapping[str, tuple[Change, ...]]) -> list[Model]:
    return await asyncio.gather(*(rehearse(site, name, life) for name, life in lives.items()))


@pytest.fixture(scope="module")
async def models(own: OwnLibvirt, servers_home: Path, nats_server: NatsServer) -> list[Model]:
    """On QEMU."""
    lives = {**LIVES, **{name: MORE_LIVES[name] for name in ("suspend", "restore")}}
    async with site_on(own, servers_home, nats_server) as site, site.daemon():
        models = await rehearsals(site, lives)
        await site.node.remove(*site.node.documents)
    return models


Deaths = dict[str, tuple[Model, Stop]]
"""Where each VM is to be when it happens."""


def where(model: Model, stop: Stop) -> str:
    return f"{model.name}, {'before' if stop.before else 'after'} {model.acts[stop.number - 1]}"


async def test_the_daemon_dies_at_every_act_on_a_simulated_host(simulated: Site) -> None:
    async with simulated.daemon():
        models = await rehearsals(simulated, MORE_LIVES)
    await the_daemon_dies(
        simulated,
        {
            new_vm(): (model, Stop(number, before))
            for model in models
            for number in range(1, len(model.acts) + 1)
            for before in (True, False)
        },
    )


@pytest.mark.qemu
async def test_the_daemon_dies_after_every_act_on_qemu(on_qemu: OnQemu, models: list[Model]) -> None:
    """After one act is before the next."""
    numbered = [(model, number) for model in models for number in range(1, len(model.acts) + 1)]
    await the_daemon_dies(on_qemu, {new_vm(): (model, Stop(number, before=False)) for model, number in numbered})


async def the_daemon_dies(site: Site, deaths: Deaths) -> None:
    async with site.daemon():
        await asyncio.gather(*(prepare(site, vm, model.life) for vm, (model, _) in deaths.items()))
    known = {vm: len(site.acts(vm, "done")) for vm in deaths}
    for vm, (model, _) in deaths.items():
        await site.want(vm, model.life[-1])
    async with site.daemon({vm: stop for vm, (_, stop) in deaths.items()}) as doomed:
        try:
            assert await asyncio.wait_for(doomed.wait(), 60) == -signal.SIGKILL
        except TimeoutError:
            far = {where(*death): site.acts(vm, "begins") for vm, death in deaths.items()}
            raise AssertionError(f"not all got there: {far}") from None
    async with site.daemon():
        for vm, death in deaths.items():
            model, _ = death
            assert await site.settled(vm) == model.left, where(*death)
            assert on_guest(site.acts(vm, "done")[known[vm] :]) == on_guest(model.acts), where(*death)
        await site.node.remove(*site.node.documents)
    await nothing_is_left(site)


async def nothing_is_left(site: Site) -> None:
    for vm in site.node.documents:
        assert await site.look(vm) == Have(vm, Power.ABSENT)
    data = site.node.settings.data_dir
    assert [path for folder in ("disks", "consoles") for path in (data / folder).iterdir()] == []
    assert list((data / "images").glob("*.part*")) == []


@pytest.mark.qemu
async def test_libvirtd_dies_at_every_act(own: OwnLibvirt, on_qemu: OnQemu, models: list[Model]) -> None:
    """It dies while every VM stands at another act, and once more in the middle of what they go on with."""
    there = asyncio.Event()
    acts = Acts(there.set)
    deaths: Deaths = {
        new_vm(): (model, Stop(number, before))
        for model in models
        for number in range(1, len([act for act in model.acts if act in ON_DOMAINS]) + 1)
        for before in (True, False)
    }
    bystander = new_vm()
    async with on_qemu.node.daemon(Acting(on_qemu.hypervisor, acts)):  # type: ignore[arg-type]
        await asyncio.gather(
            prepare(on_qemu, bystander, (ON, ON)),
            *(prepare(on_qemu, vm, model.life) for vm, (model, _) in deaths.items()),
        )
        acts.stop_at({vm: stop for vm, (_, stop) in deaths.items()})
        for vm, (model, _) in deaths.items():
            await on_qemu.want(vm, model.life[-1])
        await eventually(there.is_set, "all are there")
        said = len(on_qemu.node.reports[bystander])
        run_on = [bystander, *(vm for vm, (model, stop) in deaths.items() if model.runs_on_from(stop))]
        guests = {domain_name(vm): own.guests()[domain_name(vm)] for vm in run_on}
        await own.kill()
        await own.start()
        acts.go_on.set()
        await asyncio.sleep(0.2)
        await own.kill()
        await own.start()
        for vm, death in deaths.items():
            assert await on_qemu.settled(vm) == death[0].left, where(*death)
        await on_qemu.settled(bystander)
        assert own.guests().items() >= guests.items(), "guests survive it"
        assert {report.power for report in on_qemu.node.reports[bystander][said:]} <= {Power.ON, Power.UNKNOWN}
        await on_qemu.node.remove(*on_qemu.node.documents)
    await nothing_is_left(on_qemu)


@pytest.mark.qemu
async def test_memory_that_libvirtd_left_over_is_never_gone_back_to(own: OwnLibvirt, on_qemu: OnQemu) -> None:
    """It died in the middle of a suspension, and nobody wants that any more: the guest runs on beside half a file."""
    runs, paused = new_vm(), new_vm()
    async with on_qemu.node.daemon(on_qemu.hypervisor):
        await asyncio.gather(prepare(on_qemu, runs, (ON, ON)), prepare(on_qemu, paused, (ON, PAUSED, ON)))
        await own.kill()
        left_over = [own.memory(domain_name(vm)) for vm in (runs, paused)]
        for file in left_over:
            file.write_bytes(b"LibvirtQemudPart")
        await own.start()
        await eventually(lambda: not any(file.exists() for file in left_over), "it is deleted")
        for vm in (runs, paused):
            await on_qemu.settled(vm)
            await on_qemu.want(vm, OFF)
            await on_qemu.settled(vm)
        await on_qemu.node.remove(runs, paused)
    assert not {report.power for vm in (runs, paused) for report in on_qemu.node.reports[vm]} & {Power.SUSPENDED}
