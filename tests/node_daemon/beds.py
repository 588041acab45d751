"""Where a hypervisor is tested: the simulator, libvirt's test driver, real QEMU."""

import contextlib
import os
import signal
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from domain.contract import Power
from node_daemon.hypervisor.domain_xml import domain_name
from node_daemon.hypervisor.faults import Faulty
from node_daemon.hypervisor.hypervisor import Boot, Have, Hypervisor, Sighting
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.hypervisor.machine import VirtType
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from runtime.images.qemu_img import qemu_img
from runtime.settings import FaultRates, Latencies
from tests.node_daemon.documents import boot_disk, new_vm, wanted
from tests.waiting import eventually

TEST = "test:///default"
QEMU = "qemu:///system"


class Bed(ABC):
    """Where a hypervisor is tested. What cannot be had there skips the test."""

    hypervisor: Hypervisor

    @abstractmethod
    async def boot(self, **changes: Any) -> Boot:
        """A new VM with a disk. Its guest powers itself off when asked to, once it is up."""

    @abstractmethod
    async def again(self) -> Hypervisor:
        """The same hypervisor as a restarted daemon gets to see it; `hypervisor` is not used after it."""

    @abstractmethod
    async def power_off(self, vm: str) -> None:
        """The guest powers itself off."""

    @abstractmethod
    async def crash(self, vm: str) -> None:
        """The domain dies."""

    @abstractmethod
    def define_foreign(self, uuid: str, name: str) -> None: ...

    @abstractmethod
    async def without_network(self) -> Hypervisor:
        """One that was told of a network that is not there."""

    @abstractmethod
    async def unreachable(self) -> Hypervisor:
        """One that nobody answers for."""

    async def leased(self, boot: Boot) -> Sighting:
        """What is seen of a running guest, once it has a lease."""

        async def look() -> Sighting | None:
            sighting = await self.hypervisor.addresses(boot.wanted.vm, boot.wanted.mac)
            return sighting if sighting.leases else None

        found: Sighting = await eventually(look, "an address")
        return found

    @abstractmethod
    async def without_agent(self, vm: str) -> None:
        """Nobody in the running guest answers for it, nor ever will."""

    @abstractmethod
    async def with_hung_agent(self, vm: str) -> None:
        """An agent is there, once the guest is up, and answers nothing."""

    @abstractmethod
    async def with_agent(self, vm: str) -> None:
        """An agent is there, once the guest is up."""

    async def off(self, vm: str) -> Have:
        """What there is of a VM once it does not run any more."""

        async def look() -> Have | None:
            have = await self.hypervisor.look(vm)
            return None if have.power is Power.ON else have

        have: Have = await eventually(look, "the domain is off")
        return have


def boots(boot: Boot, count: int) -> Boot:
    """The same VM, told to boot once more."""
    return replace(boot, wanted=boot.wanted.model_copy(update={"boots": count, "generation": count}))


class Simulated(Bed):
    """With calls that take a while, so that they overlap, and guests that are not up at once."""

    def __init__(self, host_store: HostStore) -> None:
        self._host_store = host_store
        self.simulator = self._new()
        self.hypervisor = self.simulator

    def _new(self, **changes: Any) -> Simulator:
        seconds = Latencies(call=0.001, boot=0.1, lease=0.05, shutdown=0.02, memory=0.02)
        return Simulator(SimulatedHost("n1", self._host_store), seconds=seconds, **changes)

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

    def _new(self, uri: str | None = None, network: str = "default", deadline: float = 60) -> LibvirtHypervisor:
        return LibvirtHypervisor(uri or self.uri, network, self.virt_type, deadline=deadline)

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
        return self.on_network("no-such-network")

    def with_deadline(self, seconds: float) -> LibvirtHypervisor:
        return self._keep(self._new(deadline=seconds))

    def on_network(self, name: str) -> LibvirtHypervisor:
        return self._keep(self._new(network=name))

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
