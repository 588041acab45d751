"""The contract on the simulator, on libvirt's test driver and on real QEMU."""

import os
import signal
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from domain.contract import Firmware, Power
from node_daemon.hypervisor.domain_xml import domain_name
from node_daemon.hypervisor.faults import Faulty
from node_daemon.hypervisor.hypervisor import Unreachable
from node_daemon.simulation.host_store import HostStore
from runtime.local.libvirtd import Libvirt
from runtime.settings import FaultRates
from tests.node_daemon.beds import Bed, OnLibvirt, OnQemu, OnTestDriver, Simulated, boots
from tests.node_daemon.contract import HypervisorContract
from tests.node_daemon.documents import raw_image
from tests.waiting import eventually

NVRAM = Path("/var/lib/libvirt/qemu/nvram")


class TestSimulator(HypervisorContract):
    @pytest.fixture
    async def bed(self, tmp_path: Path) -> AsyncIterator[Bed]:
        host_store = HostStore(tmp_path / "hosts.sqlite")
        bed = Simulated(host_store)
        yield bed
        bed.simulator.host.close()
        host_store.close()


class TestFaultyWithoutFaults(TestSimulator):
    @pytest.fixture
    async def bed(self, tmp_path: Path) -> AsyncIterator[Bed]:
        bed = Simulated(HostStore())
        bed.hypervisor = Faulty(bed.simulator, FaultRates(), deadline=60)
        yield bed
        bed.simulator.host.close()


class UefiContract:
    async def test_uefi_with_its_own_memory(self, bed: OnLibvirt) -> None:
        """Kept, started anew, suspended and removed like any other; what it remembers of its settings goes with it."""
        image = raw_image(bed.folder / "uefi.raw").model_copy(update={"firmware": Firmware.UEFI})
        boot, hypervisor = await bed.boot(image=image), bed.hypervisor
        vm = boot.wanted.vm
        for count in (1, 2):
            await hypervisor.start(boots(boot, count))
            await hypervisor.persist(vm)
            seen = await hypervisor.look(vm)
            assert (seen.power, seen.boots, seen.persistent) == (Power.ON, count, True)
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
        await hypervisor.persist(boot.wanted.vm)
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

    async def test_a_process_that_hangs_hides_the_usage_of_no_other_guest(self, bed: OnQemu) -> None:
        made = [await bed.boot(), await bed.boot()]
        hung, good = [boot.wanted.vm for boot in made]
        for boot in made:
            await bed.hypervisor.start(boot)
        hypervisor = bed.with_deadline(2)

        async def known(*vms: str) -> bool:
            """Whether all is known of these guests, also what only QEMU knows."""
            try:
                found = await hypervisor.usage()
            except Unreachable:
                return False
            return all(found[vm].cpu_ns is not None and found[vm].totals.disk_read is not None for vm in vms)

        await eventually(partial(known, hung, good), "both are measured")
        process = int(Path(f"/run/libvirt/qemu/{domain_name(hung)}.pid").read_text())
        os.kill(process, signal.SIGSTOP)
        try:
            for _ in range(3):
                await eventually(partial(known, good), "the other one is measured", seconds=20)
            assert not await known(hung), "it hangs, or this shows nothing"
        finally:
            os.kill(process, signal.SIGCONT)
        await eventually(partial(known, hung, good), "both are measured again")

    async def test_an_inactive_network_is_started_with_its_guest(self, bed: OnQemu) -> None:
        boot, name = await bed.boot(), f"t-{uuid.uuid4().hex[:8]}"
        network = bed.connection.networkDefineXML(f"<network><name>{name}</name></network>")
        try:
            hypervisor = bed.on_network(name)
            await hypervisor.start(boot)
            assert network.isActive()
            assert (await hypervisor.look(boot.wanted.vm)).power is Power.ON
            await hypervisor.destroy(boot.wanted.vm)
        finally:
            if network.isActive():
                network.destroy()
            network.undefine()
