"""The daemon on a real bus: documents in, domains made, reports out; whatever crashes between two steps."""

import asyncio
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import pytest

from domain.base import Resources
from domain.contract import Desired, ImageSource, NodeReport, Power
from node_daemon import lane
from node_daemon.base_image import Kept
from node_daemon.disks import GIB
from node_daemon.domain_xml import domain_name
from node_daemon.hypervisor import Boot, Have, Hypervisor, Nudge, Refused, Unreachable
from node_daemon.libvirt_adapter import LibvirtHypervisor
from node_daemon.plan import Host
from runtime import gauge
from runtime.qemu_img import qemu_img
from runtime.servers import NatsServer
from tests.image_server import Images, serving
from tests.node_daemon.documents import MIB, qcow2_image, raw_image, source_of
from tests.node_daemon.harness import Node, a_node, failed, gone, off, on
from tests.waiting import eventually

URI = "test:///default"


@pytest.fixture
def connection() -> Iterator[Any]:
    """The test's own view of libvirt's test driver, which lives in this process."""
    connection = libvirt.open(URI)
    yield connection
    connection.close()


@pytest.fixture
async def hypervisor(connection: Any) -> AsyncIterator[LibvirtHypervisor]:
    hypervisor = LibvirtHypervisor(URI, "default", "test", deadline=60)
    yield hypervisor
    hypervisor.close()


@pytest.fixture
async def node(servers_home: Path, nats_server: NatsServer) -> AsyncIterator[Node]:
    async with a_node(servers_home, nats_server.url, URI) as node:
        yield node


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again at once."""
    monkeypatch.setattr(lane, "FIRST_RETRY", 0.001)


def files_of(node: Node) -> list[Path]:
    return [path for folder in ("disks", "consoles") for path in (node.settings.data_dir / folder).iterdir()]


async def test_a_life(node: Node, hypervisor: LibvirtHypervisor, connection: Any) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create()
        report = await node.until(vm, on)
        assert (report.boots, report.epoch, report.step, report.error) == (1, 1, None, None)
        assert (await node.until(vm, lambda report: bool(report.addresses))).addresses[0].startswith("192.168.122.")
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


async def test_the_news_of_a_start_comes_before_its_configuration_is_stored(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "NEWS_FIRST", 3600.0)
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        assert not connection.lookupByUUIDString(vm).isPersistent()
    monkeypatch.undo()
    async with node.daemon(hypervisor):
        await eventually(connection.lookupByUUIDString(vm).isPersistent, "stored by the next daemon")


def paused(report: NodeReport) -> bool:
    return report.power is Power.PAUSED and report.step is None


def suspended(report: NodeReport) -> bool:
    return report.power is Power.SUSPENDED and report.step is None


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


async def test_another_size_counts_from_the_next_start_on(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any
) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create()
        small = (await node.until(vm, on)).size
        assert small == Resources(vcpus=1, memory_mib=64, disk_gib=1)
        await node.change(vm, vcpus=2, memory_mib=128, disk_gib=3)
        await asyncio.sleep(0.3)
        assert (await node.until(vm, on)).size == small
        await node.change(vm, boots=2)
        report = await node.until(vm, lambda report: on(report) and report.boots == 2)
        assert report.size == Resources(vcpus=2, memory_mib=128, disk_gib=3)
        assert connection.lookupByUUIDString(vm).info()[1:4:2] == [128 * 1024, 2]
        info = json.loads(await qemu_img("info", "--output=json", str(node.disks / vm / "root.qcow2")))
        assert info["virtual-size"] == 3 * GIB
        await node.remove(vm)


def disks_of(node: Node, vm: str) -> dict[str, bytes]:
    """The names of a VM's disks, each with the image under it."""
    found = {}
    for path in (node.disks / vm).iterdir():
        info = json.loads(subprocess.check_output(["qemu-img", "info", "-U", "--output=json", str(path)]))
        found[path.name] = Path(info["backing-filename"]).read_bytes()[:5]
    return found


def base_of(connection: Any, vm: str) -> tuple[str, str]:
    """The file under a domain's disk, and its format, as libvirt was told."""
    backing = ET.fromstring(connection.lookupByUUIDString(vm).XMLDesc()).find("devices/disk/backingStore")
    assert backing is not None
    return Path(backing.find("source").get("file")).name, backing.find("format").get("type")  # type: ignore


@pytest.mark.parametrize(("first", "then"), [("source", "raw"), ("raw", "source")])
async def test_a_disk_stays_on_the_form_of_its_image_that_it_was_made_from(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any, first: Kept, then: Kept
) -> None:
    """A change of the setting counts for disks of images that have yet to come."""
    image = qcow2_image(node.home / "i.qcow2")
    folder, format_ = node.settings.data_dir / "images", {"raw": "raw", "source": "qcow2"}

    def images(kept: Kept) -> Images:
        return Images(folder, node.settings.image_folders, kept=kept)

    async with node.daemon(hypervisor, images(first)):
        vm = await node.create(image=image)
        await node.until(vm, on)
        made = (f"{image.sha256}.{format_[first]}", format_[first])
        assert base_of(connection, vm) == made
        await node.change(vm, desired=Desired.OFF)
        await node.until(vm, off)
    async with node.daemon(hypervisor, images(then)):
        await node.change(vm, desired=Desired.ON, boots=2)
        await node.until(vm, lambda report: on(report) and report.boots == 2)
        assert base_of(connection, vm) == made
        await node.change(vm, desired=Desired.OFF)
        await node.until(vm, off)
        (folder / made[0]).rename(node.home / "aside")
        other = await node.create(image=image)
        await node.until(other, on)
        assert base_of(connection, other) == (f"{image.sha256}.{format_[then]}", format_[then])
        (node.home / "aside").rename(folder / made[0])
        await node.change(vm, desired=Desired.ON, boots=3)
        await node.until(vm, lambda report: on(report) and report.boots == 3)
        assert base_of(connection, vm) == made, "whatever else is there"
        info = json.loads(await qemu_img("info", "-U", "--output=json", str(node.disks / vm / "root.qcow2")))
        assert (Path(info["backing-filename"]).name, info["backing-filename-format"]) == made
        await node.remove(vm, other)


async def test_rebuilt_on_a_new_disk(node: Node, hypervisor: LibvirtHypervisor, connection: Any) -> None:
    other = raw_image(node.home / "other.raw", fill=b"other")
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        await node.change(vm, desired=Desired.SUSPENDED)
        await node.until(vm, suspended)
        await node.change(vm, desired=Desired.ON, boots=2, disk=2, image=other)
        await node.until(vm, lambda report: on(report) and report.boots == 2)
        assert disks_of(node, vm) == {"root-2.qcow2": b"other"}
        assert "root-2.qcow2" in connection.lookupByUUIDString(vm).XMLDesc()
        await eventually(lambda: connection.lookupByUUIDString(vm).isPersistent(), "the domain is kept")
    async with node.daemon(hypervisor):
        await node.change(vm, boots=3, disk_gib=2)
        await node.until(vm, lambda report: on(report) and report.boots == 3)
        assert disks_of(node, vm) == {"root-2.qcow2": b"other"}
        await node.remove(vm)
        assert files_of(node) == []


async def test_what_cannot_be_rebuilt_keeps_its_old_disk_and_is_told(node: Node, hypervisor: LibvirtHypervisor) -> None:
    wrong = raw_image(node.home / "wrong.raw", fill=b"other").model_copy(update={"sha256": "0" * 64})
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        await node.change(vm, boots=2, disk=2, image=wrong)
        await node.until(vm, failed)
        assert disks_of(node, vm) == {"root.qcow2": b"nebul"}
        await node.change(vm, boots=3, image=node.documents[vm].image.model_copy(update={"sha256": sha_of(wrong)}))  # type: ignore[union-attr]
        await node.until(vm, lambda report: on(report) and report.boots == 3)
        assert disks_of(node, vm) == {"root-2.qcow2": b"other"}
        await node.remove(vm)


def sha_of(image: ImageSource) -> str:
    return hashlib.sha256(Path(image.source).read_bytes()).hexdigest()


async def test_a_guest_that_somebody_else_paused_goes_on(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any
) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        domain = connection.lookupByUUIDString(vm)
        await eventually(domain.isPersistent, "the domain is kept")
        domain.suspend()
        await eventually(lambda: domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING, "it goes on")
        domain.managedSave(0)
        await eventually(lambda: domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING, "it goes on from disk")
        await node.until(vm, on)
        assert not any(report.error for report in node.reports[vm])
        await node.remove(vm)


async def test_a_domain_that_somebody_undefined_is_kept_again_and_one_that_is_gone_starts_on_its_disk(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any
) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        domain = connection.lookupByUUIDString(vm)
        await eventually(domain.isPersistent, "the domain is kept")
        first = (node.disks / vm / "root.qcow2").stat()
        domain.undefine()
        await eventually(domain.isPersistent, "it is kept again")
        assert domain.ID() == connection.lookupByUUIDString(vm).ID(), "the guest has not noticed"
        domain.undefine()
        domain.destroy()
        await eventually(lambda: known(connection, vm) and known(connection, vm).isPersistent(), "it is made anew")
        assert (await node.until(vm, on)).boots == 1
        assert (node.disks / vm / "root.qcow2").stat().st_ino == first.st_ino
        await node.remove(vm)


def known(connection: Any, vm: str) -> Any:
    try:
        return connection.lookupByUUIDString(vm)
    except libvirt.libvirtError:
        return None


@pytest.mark.parametrize("forgotten", [False, True], ids=["off", "domain gone too"])
async def test_a_disk_that_is_gone_is_never_made_anew_by_itself(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any, forgotten: bool
) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        await node.change(vm, disk_made=1)  # handlers know from the report that it ran
        await node.change(vm, desired=Desired.OFF)
        await node.until(vm, off)
        disk = node.disks / vm / "root.qcow2"
        aside = disk.rename(node.home / "aside.qcow2")
        if forgotten:
            disk.parent.rmdir()
            connection.lookupByUUIDString(vm).undefine()
        await node.change(vm, desired=Desired.ON, boots=2)
        report = await node.until(vm, failed)
        assert report.error is not None
        assert report.error.code == "disk_missing"
        assert not disk.exists()

        disk.parent.mkdir(exist_ok=True)
        aside.rename(disk)
        await node.change(vm, boots=3)
        await node.until(vm, lambda report: on(report) and report.boots == 3)
        await node.change(vm, desired=Desired.OFF)
        await node.until(vm, off)
        disk.unlink()
        await node.change(vm, desired=Desired.ON, boots=4)
        await node.until(vm, failed)
        await node.change(vm, boots=5, disk=2)
        await node.until(vm, lambda report: on(report) and report.boots == 5)
        assert [path.name for path in disk.parent.iterdir()] == ["root-2.qcow2"]
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
                await eventually(connection.lookupByUUIDString(vm).isPersistent, "the domain is kept")
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


class Storage:
    """A hypervisor under whose guests the storage breaks: they stand still, and do so again until it is mended."""

    def __init__(self, real: Hypervisor) -> None:
        self._real = real
        self.broken = False
        self.tries = 0

    def _seen(self, have: Have) -> Have:
        return replace(have, power=Power.PAUSED, stalled=True) if self.broken and have.power is Power.ON else have

    async def look(self, vm: str) -> Have:
        return self._seen(await self._real.look(vm))

    async def domains(self) -> Any:
        return {vm: self._seen(have) for vm, have in (await self._real.domains()).items()}

    async def unpause(self, vm: str) -> None:
        self.tries += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def test_an_io_error_is_told_and_tried_again_when_asked(node: Node, hypervisor: LibvirtHypervisor) -> None:
    storage = Storage(hypervisor)
    async with node.daemon(storage) as daemon:
        vm = await node.create()
        await node.until(vm, on)
        storage.broken = True
        await daemon.tick()
        report = await node.until(vm, failed)
        assert (report.error and report.error.code, report.power) == ("io_error", Power.PAUSED)
        assert storage.tries == 0
        await node.change(vm, desired=Desired.PAUSED)
        await node.until(vm, paused)
        await node.change(vm, desired=Desired.ON, resume=True)
        await eventually(lambda: storage.tries == 1, "the try to go on")
        for _ in range(5):
            await daemon.tick()
            await asyncio.sleep(0.05)
        assert storage.tries == 1, "not again at once"
        storage.broken = False
        await daemon.tick()
        await node.until(vm, on)
        await node.remove(vm)


@pytest.mark.usefixtures("impatient")
async def test_memory_that_cannot_be_restored_is_an_answer_and_stays(node: Node, hypervisor: LibvirtHypervisor) -> None:
    class Corrupt:
        async def restore(self, vm: str, host_boot: str, patience: float) -> None:
            raise Refused("the saved state cannot be read")

        def __getattr__(self, name: str) -> Any:
            return getattr(hypervisor, name)

    async with node.daemon(Corrupt()):  # type: ignore[arg-type]
        vm = await node.create()
        await node.until(vm, on)
        await node.change(vm, desired=Desired.SUSPENDED)
        await node.until(vm, suspended)
        await node.change(vm, desired=Desired.ON, resume=True)
        report = await node.until(vm, failed)
        assert report.error is not None
        assert (report.error.code, report.power) == ("restore_failed", Power.SUSPENDED)
        assert "stop it by force" in report.error.detail
        await node.change(vm, desired=Desired.SUSPENDED, resume=False)
        await node.until(vm, suspended)
        await node.change(vm, desired=Desired.OFF)
        await node.until(vm, off)
        await node.remove(vm)


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
        await eventually(lambda: connection.lookupByUUIDString(vm).isPersistent(), "the domain is kept")
        connection.lookupByUUIDString(vm).shutdown()
        assert (await node.until(vm, off)).cause == "guest"
    async with node.daemon(hypervisor):
        seen = len(node.reports[vm])
        await eventually(lambda: len(node.reports[vm]) > seen, "the report after the restart")
        await node.until(vm, off)
        await node.change(vm, boots=2)
        await node.until(vm, on)
        await node.remove(vm)


async def test_what_fails_for_good_is_reported_and_left_until_the_document_changes(
    node: Node, hypervisor: LibvirtHypervisor
) -> None:
    image = raw_image(node.home / "wrong.raw", fill=b"other")
    async with node.daemon(hypervisor):
        vm = await node.create(image=image.model_copy(update={"sha256": "0" * 64}))
        report = await node.until(vm, failed)
        assert report.error is not None
        assert (report.error.code, report.power) == ("checksum_mismatch", Power.ABSENT)
        small = await node.create(image=qcow2_image(node.home / "big.qcow2", 2 * 1024**3))
        report = await node.until(small, failed)
        assert report.error is not None
        assert report.error.code == "disk_too_small"

        await node.change(vm, image=image, boots=2)
        await node.until(vm, on)
        await node.remove(vm, small)


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


async def test_older_documents_mean_nothing(node: Node, hypervisor: LibvirtHypervisor) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create(epoch=2, generation=7)
        await node.until(vm, on)
        newest = node.documents[vm]
        for stale in ({"epoch": 1, "generation": 9}, {"generation": 6}):
            await node.want(newest.model_copy(update={"desired": Desired.ABSENT, **stale}))
    async with node.daemon(hypervisor) as daemon:  # only a stale one is left to read
        seen = len(node.reports[vm])
        await eventually(lambda: len(node.reports[vm]) > seen, "the report after the restart")
        for _ in range(3):
            await daemon.tick()
        assert (await hypervisor.look(vm)).power is Power.ON
        await node.want(newest.model_copy(update={"desired": Desired.OFF, "generation": 8}))
        await node.until(vm, off)
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
        await daemon._wanted.forget(daemon._is_gone)
        assert vm in daemon._wanted.all(), "the document is still there"
        await node.client.jetstream().purge_stream(
            "NEBULA_WANTED", subject=f"nebula.nodes.{node.settings.node}.wanted.vm.{vm}"
        )
        await daemon._wanted.forget(daemon._is_gone)
        await eventually(lambda: vm not in daemon._lanes, "the lane ends")
        assert daemon._reports.shown(vm) is None


# ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Moody:
    """A hypervisor that refuses the first times, and is away for the next."""

    def __init__(self, real: Hypervisor) -> None:
        self._real = real
        self.moods: list[Exception] = [Refused("no memory left"), Unreachable("gone"), Refused("still none")]

    async def start(self, boot: Boot) -> Have:
        if self.moods:
            raise self.moods.pop(0)
        return await self._real.start(boot)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def test_what_may_pass_is_tried_again(node: Node, hypervisor: LibvirtHypervisor) -> None:
    moody = Moody(hypervisor)
    async with node.daemon(moody):
        vm = await node.create()
        await node.until(vm, lambda report: report.step == "domain")
        await node.until(vm, on)
        await node.remove(vm)
        assert not any(report.error for report in node.reports[vm])


@pytest.mark.usefixtures("impatient")
async def test_only_refusals_are_an_answer(node: Node, hypervisor: LibvirtHypervisor) -> None:
    moody = Moody(hypervisor)
    moody.moods = [*(Unreachable("gone") for _ in range(5)), Refused("no memory left")]
    async with node.daemon(moody):
        vm = await node.create()
        await node.until(vm, on)
        await node.remove(vm)
        assert not any(report.error for report in node.reports[vm])


@pytest.mark.usefixtures("impatient")
async def test_refused_again_and_again_is_an_answer(node: Node, hypervisor: LibvirtHypervisor) -> None:
    moody = Moody(hypervisor)
    moody.moods = [Refused("no memory left") for _ in range(5)]
    async with node.daemon(moody):
        vm = await node.create()
        report = await node.until(vm, failed)
        assert report.error is not None
        assert (report.error.code, report.error.detail) == ("start_failed", "no memory left")
        await node.remove(vm)


class Blind:
    """A hypervisor that cannot be seen for a while."""

    def __init__(self, real: Hypervisor) -> None:
        self._real = real
        self.blind = False
        self._nudge: Nudge | None = None

    async def look(self, vm: str) -> Have:
        if self.blind:
            raise Unreachable("away")
        return await self._real.look(vm)

    async def domains(self) -> Any:
        if self.blind:
            raise Unreachable("away")
        return await self._real.domains()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def test_not_seen_is_not_off(node: Node, hypervisor: LibvirtHypervisor) -> None:
    blind = Blind(hypervisor)
    async with node.daemon(blind):
        vm = await node.create()
        await node.until(vm, on)
        blind.blind = True
        await node.until(vm, lambda report: report.power is Power.UNKNOWN)
        blind.blind = False
        await node.until(vm, on)
        await node.remove(vm)


async def test_one_vm_that_hangs_does_not_hold_up_another(node: Node, hypervisor: LibvirtHypervisor) -> None:
    class Stuck:
        stuck = ""

        async def start(self, boot: Boot) -> Have:
            if boot.wanted.vm == self.stuck:
                await asyncio.Event().wait()
            return await hypervisor.start(boot)

        def __getattr__(self, name: str) -> Any:
            return getattr(hypervisor, name)

    stuck = Stuck()
    vm = await node.create()
    stuck.stuck = vm
    async with node.daemon(stuck):
        await node.until(vm, lambda report: report.step == "domain")
        other = await node.create()
        await node.until(other, on)
        await node.remove(other)
    async with node.daemon(hypervisor):
        await node.remove(vm)


async def test_a_delete_overtakes_an_image_that_never_comes(node: Node, hypervisor: LibvirtHypervisor) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silence, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/image"
    image = raw_image(node.home / "far.raw", fill=b"far").model_copy(update={"source": url})
    async with listener, node.daemon(hypervisor):
        vm = await node.create(image=image)
        await node.until(vm, lambda report: report.step == "image")
        await node.remove(vm)


async def test_how_far_a_download_is_shows_in_the_step(
    node: Node, hypervisor: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauge, "SECONDS", 0.1)
    async with serving(os.urandom(4 * MIB)) as server:
        server.slow = 0.05
        path = node.home / "far.raw"
        path.write_bytes(server.body)
        vm = await node.create(image=source_of(path, "raw", 4 * MIB, at=server.url))
        async with node.daemon(hypervisor):
            await node.until(vm, lambda report: report.step == "image, 50 % of 4 MiB")
            await node.until(vm, on)
            await node.remove(vm)
    steps = [report.step for report in node.reports[vm] if report.step]
    assert len(steps) < 10, steps


async def test_the_bus_restarts(servers_home: Path, connection: Any, hypervisor: LibvirtHypervisor) -> None:
    """Documents and reports go on where they were, and what changed meanwhile is told afterwards."""
    from runtime.servers import start_nats

    home = servers_home / "restarting"
    home.mkdir()
    server = await start_nats(home)
    async with a_node(home, server.url, URI) as node, node.daemon(hypervisor):
        vm, other = await node.create(), await node.create()
        await node.until(vm, on)
        await node.until(other, on)
        await eventually(lambda: connection.lookupByUUIDString(other).isPersistent(), "the domain is kept")
        await server.kill()
        connection.lookupByUUIDString(other).destroy()
        await asyncio.sleep(0.5)
        server = await start_nats(home, port=server.port)
        await node.until(other, off)
        await node.change(vm, boots=2)
        await node.until(vm, lambda report: on(report) and report.boots == 2)
        await node.remove(vm, other)
    await server.stop()
