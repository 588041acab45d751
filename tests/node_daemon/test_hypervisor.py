"""The contract on the simulator, on libvirt's test driver and on real QEMU; and what is libvirt's alone."""

import asyncio
import contextlib
import os
import signal
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from domain.contract import Firmware, Power
from node_daemon.domain_xml import domain_name
from node_daemon.faults import Faulty
from node_daemon.hypervisor import Boot, Hypervisor, Refused, Sighting, Unreachable
from node_daemon.libvirt_adapter import LibvirtHypervisor, with_uefi
from node_daemon.machine import AARCH64, X86_64, Machine, VirtType
from node_daemon.shelf import Shelf
from node_daemon.simulated_host import SimulatedHost
from node_daemon.simulator import Simulator
from runtime.libvirtd import Libvirt
from runtime.qemu_img import qemu_img
from runtime.settings import FaultRates, Latencies
from runtime.tasks import end
from tests.node_daemon.contract import Bed, HypervisorContract, boots
from tests.node_daemon.documents import boot_disk, new_vm, raw_image, wanted
from tests.waiting import eventually

TEST = "test:///default"
QEMU = "qemu:///system"
NVRAM = Path("/var/lib/libvirt/qemu/nvram")


class Simulated(Bed):
    """With calls that take a while, so that they overlap, and guests that are not up at once."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.simulator = self._new()
        self.hypervisor = self.simulator

    def _new(self, **changes: Any) -> Simulator:
        seconds = Latencies(call=0.001, boot=0.1, lease=0.05, shutdown=0.02, memory=0.02)
        return Simulator(SimulatedHost("n1", self._shelf), seconds=seconds, **changes)

    async def boot(self, **changes: Any) -> Boot:
        return Boot(wanted(new_vm(), **changes), "/disk", "/base", "raw", "/console", "host-boot")

    async def again(self) -> Hypervisor:
        self.simulator.host.close()
        self.simulator = self._new()
        return self.simulator

    async def power_off(self, vm: str) -> None:
        self.simulator.host.power_off(vm)

    async def crash(self, vm: str) -> None:
        self.simulator.host.crash(vm)

    def define_foreign(self, uuid: str, name: str) -> None:
        self.simulator.host.define_foreign(uuid, name)

    async def without_agent(self, vm: str) -> None:
        self.simulator.host.agent_is(vm, "missing")

    async def with_hung_agent(self, vm: str) -> None:
        self.simulator.host.agent_is(vm, "silent")

    async def with_agent(self, vm: str) -> None:
        self.simulator.host.agent_is(vm, "answers")

    async def without_network(self) -> Hypervisor:
        return self._new(network="no-such-network")

    async def unreachable(self) -> Hypervisor:
        return Faulty(self.simulator, FaultRates(hang=1), deadline=0.01)


class TestSimulator(HypervisorContract):
    @pytest.fixture
    async def bed(self, tmp_path: Path) -> AsyncIterator[Bed]:
        shelf = Shelf(tmp_path / "hosts.sqlite")
        bed = Simulated(shelf)
        yield bed
        bed.simulator.host.close()
        shelf.close()


class TestFaultyWithoutFaults(TestSimulator):
    @pytest.fixture
    async def bed(self, tmp_path: Path) -> AsyncIterator[Bed]:
        bed = Simulated(Shelf())
        bed.hypervisor = Faulty(bed.simulator, FaultRates(), deadline=60)
        yield bed
        bed.simulator.host.close()


class OnLibvirt(Bed):
    """Its own connection is held open: the test driver forgets all with its last one."""

    uri: str
    virt_type: VirtType

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connection = libvirt.open(self.uri)
        self.hypervisor: LibvirtHypervisor = self._new()
        self._made: list[LibvirtHypervisor] = [self.hypervisor]
        self._uuids: list[str] = []

    def _new(self, uri: str | None = None, network: str = "default") -> LibvirtHypervisor:
        return LibvirtHypervisor(uri or self.uri, network, self.virt_type, deadline=60)

    async def boot(self, **changes: Any) -> Boot:
        vm = new_vm()
        self._uuids.append(vm)
        disk, base = self.folder / f"{vm}.qcow2", self.folder / "base.raw"
        base.write_bytes(boot_disk())
        await qemu_img("create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(disk))
        return Boot(
            wanted(vm, **changes), str(disk), str(base), "raw", str(disk.with_suffix(".log")), host_boot="host-boot"
        )

    async def again(self) -> Hypervisor:
        return self._keep(self._new())

    def define_foreign(self, uuid: str, name: str) -> None:
        self._uuids.append(uuid)
        self.connection.defineXML(
            f"<domain type='{self.virt_type}'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory>"
            "<os><type>hvm</type></os></domain>"
        )

    async def without_network(self) -> Hypervisor:
        return self._keep(self._new(network="no-such-network"))

    async def unreachable(self) -> Hypervisor:
        return self._keep(self._new(f"{self.virt_type}+unix:///system?socket=/nonexistent"))

    async def power_off(self, vm: str) -> None:
        """Pressed from outside until the guest hears it: to libvirt that is the guest's own doing."""

        def off() -> bool:
            try:
                domain = self.connection.lookupByUUIDString(vm)
                return not domain.isActive() or domain.shutdown() != 0
            except libvirt.libvirtError:
                return True

        await eventually(off, "the guest powers itself off")

    def _keep(self, hypervisor: LibvirtHypervisor) -> LibvirtHypervisor:
        self._made.append(hypervisor)
        return hypervisor

    def clean_up(self) -> None:
        for uuid in self._uuids:
            with contextlib.suppress(libvirt.libvirtError):
                domain = self.connection.lookupByUUIDString(uuid)
                if domain.isActive():
                    domain.destroy()
                domain.undefine()
        for hypervisor in self._made:
            hypervisor.close()
        self.connection.close()

    @abstractmethod
    async def crash(self, vm: str) -> None: ...


class OnTestDriver(OnLibvirt):
    uri, virt_type = TEST, "test"

    async def without_agent(self, vm: str) -> None:
        pytest.skip("the test driver knows of no agents, and says so")

    with_agent = with_hung_agent = without_agent

    async def crash(self, vm: str) -> None:
        pytest.skip("nothing dies in the test driver")


class OnQemu(OnLibvirt):
    uri, virt_type = QEMU, "qemu"

    async def crash(self, vm: str) -> None:
        os.kill(int(Path(f"/run/libvirt/qemu/{domain_name(vm)}.pid").read_text()), signal.SIGKILL)

    async def leased(self, boot: Boot) -> Sighting:
        pytest.skip("the guest knows no network")

    async def without_agent(self, vm: str) -> None:
        """As it is: the guest is a boot sector."""

    async def with_hung_agent(self, vm: str) -> None:
        pytest.skip("no agent runs in a boot sector; tests/e2e/test_boot.py has one that hangs")

    async def with_agent(self, vm: str) -> None:
        pytest.skip("no agent runs in a boot sector; tests/e2e/test_boot.py has one")


class UefiContract:
    async def test_uefi_with_its_own_memory(self, bed: OnLibvirt) -> None:
        """Kept, started anew, suspended and removed like any other; what it remembers of its settings goes with it."""
        image = raw_image(bed.folder / "uefi.raw").model_copy(update={"firmware": Firmware.UEFI})
        boot, hypervisor = await bed.boot(image=image), bed.hypervisor
        vm = boot.wanted.vm
        for count in (1, 2):
            await hypervisor.start(boots(boot, count))
            await hypervisor.keep(vm)
            seen = await hypervisor.look(vm)
            assert (seen.power, seen.boots, seen.kept) == (Power.ON, count, True)
            await hypervisor.suspend(vm, 60)
            await hypervisor.restore(vm, "host-boot", 60)
            assert (await hypervisor.look(vm)).power is Power.ON
            await hypervisor.destroy(vm)
        await hypervisor.undefine(vm)
        assert (await hypervisor.look(vm)).power is Power.ABSENT
        if bed.virt_type == "qemu":
            assert not list(NVRAM.glob(f"*{vm}*"))


class TestLibvirt(HypervisorContract, UefiContract):
    @pytest.fixture
    async def bed(self, servers_home: Path) -> AsyncIterator[Bed]:
        bed = OnTestDriver(servers_home)
        yield bed
        bed.clean_up()

    @pytest.mark.parametrize("defined", [True, False], ids=["inactive", "undefined"])
    async def test_our_network_is_active_before_a_guest_runs(self, bed: OnLibvirt, defined: bool) -> None:
        boot, hypervisor = await bed.boot(), bed.hypervisor

        def take_away() -> None:
            network = bed.connection.networkLookupByName("default")
            network.destroy()
            if not defined:
                network.undefine()

        take_away()
        await hypervisor.start(boot)
        assert bed.connection.networkLookupByName("default").isActive()
        await hypervisor.keep(boot.wanted.vm)
        await hypervisor.suspend(boot.wanted.vm, 60)
        take_away()
        await hypervisor.restore(boot.wanted.vm, "host-boot", 60)
        assert bed.connection.networkLookupByName("default").isActive()


@pytest.mark.qemu
class TestQemu(HypervisorContract, UefiContract):
    @pytest.fixture
    async def bed(self, servers_home: Path, libvirt_qemu: Libvirt) -> AsyncIterator[Bed]:
        bed = OnQemu(servers_home)
        yield bed
        bed.clean_up()


# ── libvirt's alone ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Somewhere:
    """A connection to a libvirt of this version, with or without firmware files."""

    version: int = 9_000_000
    firmware: str = ""

    def getDomainCapabilities(self, *_: object) -> str:
        return f"<domainCapabilities><os><enum name='firmware'>{self.firmware}</enum></os></domainCapabilities>"

    def getLibVersion(self) -> int:
        return self.version


@pytest.mark.parametrize(("machine", "package"), [(X86_64, "ovmf"), (AARCH64, "qemu-efi-aarch64")])
def test_without_uefi_it_says_which_package_helps(machine: Machine, package: str) -> None:
    with pytest.raises(Refused, match=package) as caught:
        with_uefi(Somewhere(), machine, "qemu")
    assert caught.value.invalid


@pytest.mark.parametrize(
    ("machine", "version", "panic"),
    [(X86_64, 9_000_000, "isa"), (AARCH64, 9_000_000, None), (AARCH64, 9_001_000, "pvpanic")],
)
def test_an_older_libvirt_gets_no_panic_device_that_it_does_not_know(
    machine: Machine, version: int, panic: str | None
) -> None:
    there = Somewhere(version, "<value>efi</value>")
    assert with_uefi(there, machine, "qemu") == replace(machine, panic=panic)


@asynccontextmanager
async def doorway(socket: Path) -> AsyncIterator[None]:
    """A way to libvirtd that is shut, for all who are inside as well, when left."""
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection("/run/libvirt/libvirt-sock")
        writers.extend((writer, back))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_unix_server(enter, socket)
    yield
    server.close()
    for writer in writers:
        writer.transport.abort()
    socket.unlink(missing_ok=True)


@pytest.mark.qemu
async def test_libvirtd_goes_and_comes_back(libvirt_qemu: Libvirt, tmp_path: Path) -> None:
    socket = tmp_path / "libvirt-sock"
    connection = libvirt.open("test+unix:///default")
    hypervisor = LibvirtHypervisor(f"test+unix:///default?socket={socket}", "default", "test", deadline=60)
    nudges: list[str | None] = []
    watch = asyncio.create_task(hypervisor.watch(nudges.append))
    await eventually(lambda: nudges.count(None) == 1, "told that it is away")
    boot = Boot(wanted(new_vm()), "/disk", "/base", "raw", "/console", "host-boot")
    async with doorway(socket):
        await eventually(lambda: nudges.count(None) == 2, "told that it is there")
        await hypervisor.start(boot)
        await eventually(lambda: boot.wanted.vm in nudges, "events arrive")
    with pytest.raises(Unreachable):
        await hypervisor.look(boot.wanted.vm)
    await eventually(lambda: nudges.count(None) == 3, "told that it is away again")
    nudges.clear()
    async with doorway(socket):
        assert (await hypervisor.look(boot.wanted.vm)).power is Power.ON
        await eventually(lambda: None in nudges, "told that it is there again")
        await hypervisor.destroy(boot.wanted.vm)
        await eventually(lambda: boot.wanted.vm in nudges, "events arrive again")
        await end([watch])
        hypervisor.close()
    connection.close()


async def test_every_call_has_a_deadline(tmp_path: Path) -> None:
    """A libvirtd that takes connections and never says a word. What has patience has a deadline of its own."""
    socket = tmp_path / "libvirt-sock"
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_unix_server(lambda _, writer: writers.append(writer), socket)
    hypervisor = LibvirtHypervisor(f"test+unix:///default?socket={socket}", "default", "test", deadline=0.2)
    more: dict[str, tuple[Any, ...]] = {"suspend": (0.3,), "restore": ("host-boot", 0.3), "addresses": ("mac",)}
    named: dict[str, dict[str, Any]] = {"open_console": {"force": False}}
    for_all = {"domains", "capacity", "ensure_network"}
    calls = {name for name in vars(Hypervisor) if not name.startswith("_")} - {"watch"}
    assert calls > for_all

    async def ask(name: str) -> None:
        boot = Boot(wanted(new_vm()), "/disk", "/base", "raw", "/console", "host-boot")
        about = () if name in for_all else (boot if name == "start" else boot.wanted.vm, *more.get(name, ()))
        with pytest.raises(Unreachable, match="did not return"):
            await getattr(hypervisor, name)(*about, **named.get(name, {}))

    async with asyncio.timeout(20):
        await asyncio.gather(*map(ask, calls))
    server.close()
    for writer in writers:
        writer.transport.abort()
    hypervisor.close()


async def test_a_driver_without_agents_says_so_of_guests_that_run() -> None:
    connection = libvirt.open(TEST)
    hypervisor = LibvirtHypervisor(TEST, "default", "test", deadline=60)
    boot = Boot(wanted(new_vm()), "/disk", "/base", "raw", "/console", "host-boot")
    await hypervisor.start(boot)
    with pytest.raises(Refused, match="not supported") as caught:
        await hypervisor.guest(boot.wanted.vm)
    assert type(caught.value) is Refused
    await hypervisor.destroy(boot.wanted.vm)
    hypervisor.close()
    connection.close()


async def test_a_hung_call_holds_up_nobody_else() -> None:
    """Nor do many of those that may take long, such as suspending, or that guests have to answer."""
    hypervisor = LibvirtHypervisor("test:///default", "default", "test", deadline=0.2)
    connections = hypervisor._connections
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_: Any) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    with pytest.raises(Unreachable):
        await connections.call("one", hang)
    with pytest.raises(Unreachable):
        await connections.call("one", lambda _: None)
    assert await connections.call("another", lambda connection: connection.isAlive()) == 1
    long = [asyncio.create_task(connections.call(f"long {number}", hang, patience=60)) for number in range(40)]
    await asyncio.sleep(0.3)
    assert not any(task.done() for task in long), "they have patience"
    assert await connections.call("another", lambda connection: connection.isAlive()) == 1
    guests = [
        asyncio.create_task(connections.call(f"{number} guest", hang, patience=60, of_guest=True))
        for number in range(40)
    ]
    await asyncio.sleep(0.1)
    assert await connections.call("another", lambda connection: connection.isAlive()) == 1
    assert await connections.call("1", lambda connection: connection.isAlive()) == 1
    release.set()
    await asyncio.gather(*long)
    await asyncio.gather(*guests)
    await eventually(lambda: "one" not in connections._hung, "the call's return")
    assert await connections.call("one", lambda connection: connection.isAlive()) == 1
    hypervisor.close()
