"""The daemon on a real bus: documents in, domains made, reports out."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import pytest

from domain.contract import NOWHERE, Desired, Power
from domain.guest import AddressSource
from node_daemon.hypervisor.domain_xml import NAMESPACE, PREFIX, domain_name
from node_daemon.hypervisor.hypervisor import Boot, Have, Hypervisor
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.reconcile import lane
from node_daemon.reconcile.plan import Host
from runtime.local.servers import NatsServer
from tests.node_daemon.harness import URI, Node, a_node, failed, files_of, gone, off, on, paused, suspended
from tests.waiting import eventually


async def test_a_life(node: Node, hypervisor: LibvirtHypervisor, connection: Any) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create()
        report = await node.until(vm, on)
        assert (report.boots, report.epoch, report.step, report.error) == (1, 1, None, None)
        addressed = await node.until(vm, lambda report: bool(report.addresses))
        assert addressed.addresses[0].startswith("192.168.122.")
        assert addressed.address_sources == (AddressSource(address=addressed.addresses[0], source="agent"),), (
            "all three answer here"
        )
        assert (node.disks / vm / "root.qcow2").exists()

        await node.change(vm, boots=2, force_after=datetime.now(UTC) + timedelta(minutes=5))
        await node.until(vm, lambda report: on(report) and report.boots == 2)

        await node.change(vm, desired=Desired.OFF, force_after=datetime.now(UTC) + timedelta(minutes=5))
        report = await node.until(vm, off)
        assert (report.boots, report.addresses) == (0, ())

        await node.change(vm, desired=Desired.ON, boots=3)
        await node.until(vm, lambda report: on(report) and report.boots == 3)

        await node.change(vm, desired=Desired.ABSENT)
        await node.until(vm, gone)
        assert files_of(node) == []
        with pytest.raises(libvirt.libvirtError):
            connection.lookupByUUIDString(vm)
    sequences = [report.sequence for report in node.reports[vm]]
    assert sequences == sorted(set(sequences))


async def test_the_report_of_a_start_is_sent_before_its_configuration_is_stored(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "REPORT_FIRST", 3600.0)
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        assert not connection.lookupByUUIDString(vm).isPersistent()
    monkeypatch.undo()
    async with node.daemon(hypervisor):
        await eventually(connection.lookupByUUIDString(vm).isPersistent, "stored by the next daemon")


async def test_what_is_wanted_next_does_not_wait_for_that_report(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "REPORT_FIRST", 3600.0)
    async with node.daemon(hypervisor):
        for desired, reached in ((Desired.OFF, off), (Desired.PAUSED, paused)):
            vm = await node.create()
            await node.until(vm, on)
            await node.change(vm, desired=desired)
            await node.until(vm, reached)
            assert connection.lookupByUUIDString(vm).isPersistent()


async def test_paused_suspended_and_resumed(node: Node, hypervisor: LibvirtHypervisor) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        await node.change(vm, desired=Desired.PAUSED)
        assert (await node.until(vm, paused)).boots == 1
        await node.change(vm, desired=Desired.SUSPENDED)
        await node.until(vm, suspended)
    async with node.daemon(hypervisor):
        await node.until(vm, suspended)
        await node.change(vm, desired=Desired.ON, resume=True)
        assert (await node.until(vm, on)).boots == 1
        await node.change(vm, desired=Desired.SUSPENDED, resume=False)
        await node.until(vm, suspended)
        await node.change(vm, desired=Desired.OFF)
        await node.until(vm, off)
        await node.change(vm, desired=Desired.ON, boots=2)
        await node.until(vm, lambda report: on(report) and report.boots == 2)
        await node.change(vm, desired=Desired.SUSPENDED)
        await node.until(vm, suspended)
        await node.remove(vm)
        assert files_of(node) == []


async def test_a_guest_that_somebody_else_paused_goes_on(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any
) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        domain = connection.lookupByUUIDString(vm)
        await eventually(domain.isPersistent, "the domain is persistent")
        domain.suspend()
        await eventually(lambda: domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING, "it goes on")
        domain.managedSave(0)
        await eventually(lambda: domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING, "it goes on from disk")
        await node.until(vm, on)
        assert not any(report.error for report in node.reports[vm])
        await node.remove(vm)


class Counting:
    """A hypervisor whose starts take a while and are counted."""

    def __init__(self, real: Hypervisor) -> None:
        self._real = real
        self.now = self.most = self.all = 0

    async def start(self, boot: Boot) -> Have:
        self.now, self.all = self.now + 1, self.all + 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02)
        have = await self._real.start(boot)
        self.now -= 1
        return have

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def test_a_host_that_comes_up_starts_its_guests_a_few_at_a_time(
    servers_home: Path, nats_server: NatsServer, hypervisor: LibvirtHypervisor, connection: Any
) -> None:
    async with a_node(servers_home, nats_server.url, URI, parallel_starts=3) as node:
        async with node.daemon(hypervisor):
            vms = [await node.create() for _ in range(12)]
            for vm in vms:
                await node.until(vm, on)
                await eventually(connection.lookupByUUIDString(vm).isPersistent, "the domain is persistent")
            stays_off, suspends = vms[:2]
            await node.change(stays_off, desired=Desired.OFF)
            await node.until(stays_off, off)
            await node.change(suspends, desired=Desired.SUSPENDED)
            await node.until(suspends, suspended)
        for vm in vms[2:]:
            connection.lookupByUUIDString(vm).destroy()
        counting = Counting(hypervisor)
        async with node.daemon(counting, host=Host("the next boot")):
            for vm in vms[2:]:
                await eventually(connection.lookupByUUIDString(vm).isActive, "it runs again")
                assert (await node.until(vm, on)).boots == 1
            await node.until(stays_off, off)
            await node.until(suspends, suspended)
            assert (counting.all, counting.most) == (10, 3)
            await node.remove(*vms)


async def test_on_the_way_to_on_nothing_looks_final(node: Node, hypervisor: LibvirtHypervisor) -> None:
    """Handlers take an off or absent without a step as the last word on a VM that runs."""
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        for boots in range(2, 6):
            await node.change(vm, boots=boots)
            await node.until(vm, lambda report, boots=boots: on(report) and report.boots == boots)  # type: ignore[misc]
        assert [report for report in node.reports[vm] if report.power is not Power.ON and not report.step] == []
        await node.remove(vm)


async def test_many_at_once(node: Node, hypervisor: LibvirtHypervisor) -> None:
    async with node.daemon(hypervisor):
        vms = await asyncio.gather(*(node.create() for _ in range(30)))
        for vm in vms:
            await node.until(vm, on)
        await node.remove(*vms)
        assert files_of(node) == []


async def test_a_guest_that_powers_itself_off_stays_off(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any
) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        await eventually(lambda: connection.lookupByUUIDString(vm).isPersistent(), "the domain is persistent")
        connection.lookupByUUIDString(vm).shutdown()
        assert (await node.until(vm, off)).cause == "guest"
    async with node.daemon(hypervisor):
        seen = len(node.reports[vm])
        await eventually(lambda: len(node.reports[vm]) > seen, "the report after the restart")
        await node.until(vm, off)
        await node.change(vm, boots=2)
        await node.until(vm, on)
        await node.remove(vm)


async def test_a_foreign_domain_on_our_name_is_an_error_and_survives(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any
) -> None:
    vm = await node.create()
    xml = f"<domain type='test'><name>{domain_name(vm)}</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    foreign = connection.defineXML(xml)
    async with node.daemon(hypervisor):
        report = await node.until(vm, failed)
        assert report.error is not None
        assert report.error.code == "foreign_domain"
        await node.change(vm, desired=Desired.ABSENT)
        await node.until(vm, failed)
        foreign.undefine()
        await node.until(vm, gone)


@pytest.mark.parametrize(
    "forged",
    [
        {"generation": 9 * 10**18},
        {"generation": 2**63 - 1, "epoch": 2**31 - 1},
        {"generation": 9 * 10**18, "boots": 1000},
        {"generation": 3, "epoch": 1},
    ],
)
async def test_the_newest_document_counts_whatever_numbers_stood_before(
    node: Node, hypervisor: LibvirtHypervisor, forged: dict[str, Any]
) -> None:
    """Also over a restart of the daemon, and when the domain was started from the forged one."""
    async with node.daemon(hypervisor):
        vm = await node.create(epoch=2, generation=7)
        await node.until(vm, on)
        true = node.documents[vm]
        await node.want(true.model_copy(update={"boots": 2, **forged}))
        await node.until(vm, lambda report: on(report) and report.boots == forged.get("boots", 2), "the forged one")
        await node.want(true)
        await node.until(vm, lambda report: on(report) and report.boots == 1, "the true one")
        await node.want(true.model_copy(update={"boots": 2, **forged}))
        await node.until(vm, lambda report: on(report) and report.boots == forged.get("boots", 2), "forged again")
    await node.want(true.model_copy(update={"generation": 8, "desired": Desired.OFF}))
    async with node.daemon(hypervisor):
        await node.until(vm, off)
        await node.remove(vm)


async def test_a_domain_whose_tag_says_no_place_goes_on(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any
) -> None:
    """As daemons of before defined it: epoch and generation decide."""
    async with node.daemon(hypervisor):
        vm = await node.create(generation=7)
        await node.until(vm, on)
        domain = connection.lookupByUUIDString(vm)
        await eventually(domain.isPersistent, "the domain is persistent")
    for which in (libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG):
        tag = ET.fromstring(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, which))
        del tag.attrib["place"]
        changed = ET.tostring(ET.Element("vm", tag.attrib), encoding="unicode")
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, changed, PREFIX, NAMESPACE, which)
    assert (await hypervisor.look(vm)).place == NOWHERE
    async with node.daemon(hypervisor) as daemon:
        seen = len(node.reports[vm])
        await eventually(lambda: len(node.reports[vm]) > seen, "the report after the restart")
        await daemon.tick()
        assert (await hypervisor.look(vm)).place == NOWHERE, "not started anew"
        await node.change(vm, desired=Desired.OFF)
        await node.until(vm, off)
        await node.change(vm, desired=Desired.ON, boots=2)
        await node.until(vm, on)
        assert (await hypervisor.look(vm)).place != NOWHERE
        await node.remove(vm)


async def test_orphans_are_told_and_left_alone(node: Node, hypervisor: LibvirtHypervisor) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
    await node.client.jetstream().purge_stream(
        "NEBULA_WANTED", subject=f"nebula.nodes.{node.settings.node}.wanted.vm.{vm}"
    )
    async with node.daemon(hypervisor):
        await eventually(lambda: node.heartbeats and vm in node.heartbeats[-1].orphans, "the orphan in a heartbeat")
        assert (await hypervisor.look(vm)).power is Power.ON
        await node.want(node.documents[vm])
        await eventually(lambda: vm not in node.heartbeats[-1].orphans, "somebody wants it again")
        await node.remove(vm)


async def test_it_registers_until_it_is_known_and_its_heart_beats(node: Node, hypervisor: LibvirtHypervisor) -> None:
    node.refusals = 2
    async with node.daemon(hypervisor):
        await eventually(lambda: node.registrations, "the registration")
        request = node.registrations[0]
        name = node.settings.node
        assert request["info"]["node"] == name
        assert (request["info"]["virt_type"], request["info"]["vcpus"]) == ("test", 16)
        vm = await node.create()
        await node.until(vm, on)
        await eventually(
            lambda: node.heartbeats and node.heartbeats[-1].wanted_position > 0, "the position in a heartbeat"
        )
        assert len({heartbeat.boot for heartbeat in node.heartbeats}) == 1
        await node.remove(vm)


async def test_a_tombstone_is_forgotten_once_its_document_is(node: Node, hypervisor: LibvirtHypervisor) -> None:
    async with node.daemon(hypervisor) as daemon:
        vm = await node.create()
        await node.until(vm, on)
        await node.remove(vm)
        await eventually(lambda: daemon._reports.is_removed(vm), "the stream has the report")
        await daemon._wanted.forget(daemon._reports.is_removed)
        assert vm in daemon._wanted.all(), "the document is still there"
        await node.client.jetstream().purge_stream(
            "NEBULA_WANTED", subject=f"nebula.nodes.{node.settings.node}.wanted.vm.{vm}"
        )
        await daemon._wanted.forget(daemon._reports.is_removed)
        await eventually(lambda: vm not in daemon._lanes, "the lane ends")
        assert daemon._reports.newest(vm) is None
