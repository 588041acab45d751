"""A VM in rescue on libvirt's test driver: which disks it gets, and what is left of them afterwards."""

from typing import Any
from xml.etree import ElementTree as ET

from domain.contract import Desired
from domain.contract.wanted import Rescue
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from tests.node_daemon.documents import qcow2_image, raw_image
from tests.node_daemon.harness import Node, failed, off, on, suspended


def attached(connection: Any, vm: str) -> list[str]:
    """The files of a domain's disks, in order."""
    domain = ET.fromstring(connection.lookupByUUIDString(vm).XMLDesc())
    found = {}
    for disk in domain.iterfind("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        assert target is not None
        assert source is not None
        if not source.attrib["file"].endswith(".iso"):  # the seed disk
            found[target.attrib["dev"]] = source.attrib["file"].rpartition("/")[2]
    return [found[device] for device in sorted(found)]


def files(node: Node, vm: str) -> list[str]:
    return sorted(path.name for path in (node.disks / vm).glob("*.qcow2"))


async def boots(node: Node, vm: str, count: int, **changes: Any) -> None:
    await node.change(vm, desired=Desired.ON, boots=count, **changes)
    await node.until(vm, lambda report: on(report) and report.boots == count)


async def test_it_boots_from_the_rescue_disk_with_its_own_as_the_second_and_back(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any
) -> None:
    image = qcow2_image(node.home / "rescue.qcow2")
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        await boots(node, vm, 2, rescue=Rescue(image=image, disk=2))
        assert attached(connection, vm) == ["rescue-2.qcow2", "root.qcow2"]
        made = (node.disks / vm / "rescue-2.qcow2").stat().st_ino

        await node.change(vm, desired=Desired.OFF)
        await node.until(vm, off)
    async with node.daemon(hypervisor):
        await boots(node, vm, 3)
        assert attached(connection, vm) == ["rescue-2.qcow2", "root.qcow2"]
        assert (node.disks / vm / "rescue-2.qcow2").stat().st_ino == made, "it stays on its rescue disk"

        await boots(node, vm, 4, rescue=None)
        assert (attached(connection, vm), files(node, vm)) == (["root.qcow2"], ["root.qcow2"])
        await boots(node, vm, 5, rescue=Rescue(image=image, disk=5))
        assert files(node, vm) == ["rescue-5.qcow2", "root.qcow2"]
        await boots(node, vm, 6, rescue=None, disk=2)
        assert files(node, vm) == ["root-2.qcow2"], "a rebuild ends it"
        await boots(node, vm, 7, rescue=Rescue(image=image, disk=7))
        assert attached(connection, vm) == ["rescue-7.qcow2", "root-2.qcow2"]
        await node.remove(vm)
        assert not (node.disks / vm).exists()


async def test_its_memory_is_restored_in_rescue_too(node: Node, hypervisor: LibvirtHypervisor, connection: Any) -> None:
    """With the image under the rescue disk, which is fetched again where it is gone."""
    image = raw_image(node.home / "rescue.raw", fill=b"other")
    base = node.settings.data_dir / "images" / f"{image.sha256}.raw"
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        await boots(node, vm, 2, rescue=Rescue(image=image, disk=2))
        await node.change(vm, desired=Desired.SUSPENDED)
        await node.until(vm, suspended)
        base.unlink()
        await node.change(vm, desired=Desired.ON)
        await node.until(vm, on)
        assert base.exists()
        assert attached(connection, vm) == ["rescue-2.qcow2", "root.qcow2"]
        await node.remove(vm)


async def test_a_rescue_image_that_cannot_be_had_leaves_the_own_disk_as_it_is(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any
) -> None:
    wrong = raw_image(node.home / "wrong.raw", fill=b"other").model_copy(update={"sha256": "0" * 64})
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        own = (node.disks / vm / "root.qcow2").stat().st_ino
        await node.change(vm, boots=2, rescue=Rescue(image=wrong, disk=2))
        report = await node.until(vm, failed)
        assert report.error is not None
        assert report.error.code == "checksum_mismatch"
        await boots(node, vm, 3, rescue=None)
        assert (attached(connection, vm), files(node, vm)) == (["root.qcow2"], ["root.qcow2"])
        assert (node.disks / vm / "root.qcow2").stat().st_ino == own, "it was not made again"
        await node.remove(vm)


async def test_without_its_own_disk_it_is_not_rescued(node: Node, hypervisor: LibvirtHypervisor) -> None:
    image = raw_image(node.home / "rescue.raw", fill=b"other")
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        await node.change(vm, desired=Desired.OFF, disk_made=1)
        await node.until(vm, off)
        (node.disks / vm / "root.qcow2").unlink()
        await node.change(vm, desired=Desired.ON, boots=2, rescue=Rescue(image=image, disk=2))
        report = await node.until(vm, failed)
        assert report.error is not None
        assert report.error.code == "disk_missing"
        await node.remove(vm)
