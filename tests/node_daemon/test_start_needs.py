"""What a start needs beside the domain: had at create, gone since, made or fetched again, or named in the failure."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import libvirt
import pytest

from domain.contract import Desired, SeedMedium
from node_daemon.hypervisor import networks
from node_daemon.hypervisor.hypervisor import Refused
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.storage.base_image import ImageBase
from runtime.images.disk_image import Format
from tests.image_server import Images
from tests.node_daemon.data_source import a_data_source
from tests.node_daemon.documents import qcow2_image, raw_image
from tests.node_daemon.harness import URI, Node, failed, off, on, suspended

FORMATS: dict[ImageBase, Format] = {"raw": "raw", "source": "qcow2"}


async def ends(node: Node, vm: str) -> None:
    await node.change(vm, desired=Desired.OFF)
    await node.until(vm, off)


async def starts(node: Node, vm: str, boots: int, **changes: Any) -> None:
    await node.change(vm, desired=Desired.ON, boots=boots, **changes)
    await node.until(vm, lambda report: on(report) and report.boots == boots)


@pytest.mark.parametrize(("made_on", "then"), [("raw", "raw"), ("source", "raw"), ("raw", "source")])
async def test_an_image_that_is_gone_from_the_cache_is_fetched_again_in_the_form_that_the_disk_was_made_from(
    node: Node, hypervisor: LibvirtHypervisor, made_on: ImageBase, then: ImageBase
) -> None:
    image = qcow2_image(node.home / "i.qcow2")
    folder = node.settings.data_dir / "images"
    base = folder / f"{image.sha256}.{FORMATS[made_on]}"

    def images(kept: ImageBase) -> Images:
        return Images(folder, node.settings.image_folders, base=kept)

    async with node.daemon(hypervisor, images(made_on)):
        vm = await node.create(image=image)
        await node.until(vm, on)
        had = base.read_bytes()
        await ends(node, vm)
    async with node.daemon(hypervisor, images(then)):
        base.unlink()
        await starts(node, vm, 2)
        assert [path.name for path in folder.iterdir()] == [base.name]
        assert base.read_bytes() == had

        await ends(node, vm)
        shutil.rmtree(folder)
        await starts(node, vm, 3)
        assert base.read_bytes() == had
        await node.remove(vm)


async def test_before_its_memory_is_restored_too(node: Node, hypervisor: LibvirtHypervisor) -> None:
    image = raw_image(node.home / "base.raw").model_copy(update={"seed": SeedMedium.DISK})
    base = node.settings.data_dir / "images" / f"{image.sha256}.raw"
    async with a_data_source(meta_data=b"instance-id: x\n") as source, node.daemon(hypervisor):
        vm = await node.create(image=image, seed_url=source.url())
        await node.until(vm, on)
        await node.change(vm, desired=Desired.SUSPENDED)
        await node.until(vm, suspended)
        seed, consoles = node.disks / vm / "cidata.iso", node.settings.data_dir / "consoles"
        seed.unlink()
        base.unlink()
        shutil.rmtree(consoles)
        await node.change(vm, desired=Desired.ON)
        await node.until(vm, on)
        assert seed.exists()
        assert base.read_bytes().startswith(b"nebula")
        assert consoles.stat().st_mode & 0o777 == 0o700

        await node.change(vm, desired=Desired.SUSPENDED)
        await node.until(vm, suspended)
        disk = node.disks / vm / "root.qcow2"
        disk.rename(node.home / "aside")
        await node.change(vm, desired=Desired.ON)
        report = await node.until(vm, failed)
        assert report.error is not None
        assert report.error.code == "disk_missing"
        assert str(disk) in report.error.detail
        (node.home / "aside").rename(disk)
        await node.change(vm)
        await node.until(vm, on)
        await node.remove(vm)


async def test_an_image_that_cannot_be_had_any_more_is_named_and_the_disk_stays(
    node: Node, hypervisor: LibvirtHypervisor
) -> None:
    image = raw_image(node.home / "base.raw")
    base = node.settings.data_dir / "images" / f"{image.sha256}.raw"
    async with node.daemon(hypervisor):
        vm = await node.create(image=image)
        await node.until(vm, on)
        await ends(node, vm)
        made = (node.disks / vm / "root.qcow2").stat().st_ino
        base.rename(node.home / "aside")
        Path(image.source).unlink()
        await node.change(vm, desired=Desired.ON, boots=2)
        report = await node.until(vm, failed)
        assert report.error is not None
        assert report.error.code == "base_missing"
        assert image.source in report.error.detail
        assert str(base) in report.error.detail

        (node.home / "aside").rename(base)
        await starts(node, vm, 3)
        assert (node.disks / vm / "root.qcow2").stat().st_ino == made
        await node.remove(vm)


async def test_two_forms_of_an_image_are_fetched_one_after_the_other(tmp_path: Path) -> None:
    image = qcow2_image(tmp_path / "i.qcow2")
    images = Images(tmp_path / "images", [tmp_path])
    await asyncio.gather(*(images.ensure_under(image, form) for form in ("raw", "qcow2", "raw")), images.ensure(image))
    names = {path.name for path in (tmp_path / "images").iterdir()}
    assert names == {f"{image.sha256}.raw", f"{image.sha256}.qcow2"}


# ── the network ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("impatient")
async def test_a_network_of_others_that_is_undefined_is_named(node: Node) -> None:
    hypervisor = LibvirtHypervisor(URI, "no-such-network", "test", deadline=60)
    async with node.daemon(hypervisor):
        vm = await node.create()
        report = await node.until(vm, failed)
        assert report.error is not None
        assert report.error.code == "network_missing"
        assert "no-such-network" in report.error.detail
        assert "NEBULA_NETWORK" in report.error.detail
        await node.remove(vm)
    hypervisor.close()


class Broken:
    """A connection to a libvirt whose network cannot be started; as `starting` says, by us alone."""

    def __init__(self, *, starting: bool = False) -> None:
        self.starting = starting
        self.active = False

    def networkLookupByName(self, _: str) -> "Broken":
        return self

    def isActive(self) -> bool:
        return self.active

    def create(self) -> None:
        self.active = self.starting
        raise libvirt.libvirtError("address in use")


def test_a_network_that_cannot_be_started_is_named() -> None:
    with pytest.raises(Refused, match=r"guests.*virsh net-start guests") as caught:
        networks.activate(Broken(), "guests")
    assert caught.value.code == "network_inactive"
    networks.activate(Broken(starting=True), "guests")


def test_the_networks_of_a_domain_are_those_of_its_interfaces() -> None:
    of = "<domain><devices>{}</devices></domain>".format
    assert networks.of(of("<interface type='network'><source network='a'/></interface>" * 2)) == {"a"}
    assert networks.of(of("<interface type='bridge'><source bridge='br0'/></interface>")) == set()
