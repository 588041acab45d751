"""The daemon and its VMs' disks: made once, kept, made anew only when asked."""

import asyncio
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import pytest

from domain.base import Resources
from domain.contract import Desired, ImageSource
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.storage.base_image import ImageBase
from node_daemon.storage.disks import GIB
from runtime.images.qemu_img import qemu_img
from tests.image_server import Images
from tests.node_daemon.documents import qcow2_image, raw_image
from tests.node_daemon.harness import Node, failed, files_of, off, on, suspended
from tests.waiting import eventually


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
    for path in (node.disks / vm).glob("*.qcow2"):  # not the seed disk, which has no image under it
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
    node: Node, hypervisor: LibvirtHypervisor, connection: Any, first: ImageBase, then: ImageBase
) -> None:
    """A change of the setting counts for disks of images that have yet to come."""
    image = qcow2_image(node.home / "i.qcow2")
    folder, format_ = node.settings.data_dir / "images", {"raw": "raw", "source": "qcow2"}

    def images(kept: ImageBase) -> Images:
        return Images(folder, node.settings.image_folders, base=kept)

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
        await eventually(lambda: connection.lookupByUUIDString(vm).isPersistent(), "the domain is persistent")
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


async def test_a_domain_that_somebody_undefined_is_kept_again_and_one_that_is_gone_starts_on_its_disk(
    node: Node, hypervisor: LibvirtHypervisor, connection: Any
) -> None:
    async with node.daemon(hypervisor):
        vm = await node.create()
        await node.until(vm, on)
        domain = connection.lookupByUUIDString(vm)
        await eventually(domain.isPersistent, "the domain is persistent")
        first = (node.disks / vm / "root.qcow2").stat()
        domain.undefine()
        await eventually(domain.isPersistent, "it is persistent again")
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
            shutil.rmtree(disk.parent)
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
        assert [path.name for path in disk.parent.glob("*.qcow2")] == ["root-2.qcow2"]
        await node.remove(vm)
