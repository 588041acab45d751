"""Seed disks: what the data source says, on a disk that cloud-init knows by its label."""

import subprocess
from io import BytesIO
from pathlib import Path

import pycdlib
import pytest
import yaml

from domain.contract import SeedMedium
from node_daemon.failure import Temporary
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.storage import seed_disk
from tests.node_daemon.data_source import a_data_source
from tests.node_daemon.documents import raw_image
from tests.node_daemon.harness import Node, failed, gone, on
from tests.waiting import eventually


def content(disk: Path) -> dict[str, bytes]:
    """The files of a seed disk by their long names, as Joliet and Rock Ridge alike have them."""
    image = pycdlib.PyCdlib()
    image.open(str(disk))
    found: list[dict[str, bytes]] = []
    for kind in ("joliet_path", "rr_path"):
        files: dict[str, bytes] = {}
        for _, _, names in image.walk(**{kind: "/"}):
            for name in names:
                held = BytesIO()
                image.get_file_from_iso_fp(held, **{kind: f"/{name}"})
                files[name] = held.getvalue()
        found.append(files)
    image.close()
    assert found[0] == found[1]
    return found[0]


def blkid(disk: Path) -> set[str]:
    """What the tool that ds-identify asks says of a disk."""
    told = subprocess.run(["blkid", "-p", "-o", "export", disk], check=True, capture_output=True, text=True)
    return set(told.stdout.splitlines())


async def test_the_same_as_over_http(tmp_path: Path) -> None:
    disk = tmp_path / "cidata.iso"
    said = {
        "meta_data": b"instance-id: x\n",
        "user_data": b"#!" + b"\xff\n" * 30_000,
        "vendor_data": b"#cloud-config\n",
    }
    async with a_data_source(**said) as source:
        await seed_disk.make(disk, source.url(), SeedMedium.DISK)
        assert source.asked == [f"/one/{name}" for name in seed_disk.DOCUMENTS]
    assert content(disk) == {name.replace("_", "-"): body for name, body in said.items()}, "and nothing that is empty"
    assert {"LABEL=cidata", "TYPE=iso9660"} <= blkid(disk)
    assert disk.stat().st_mode & 0o777 == 0o600, "secrets"
    assert [path.name for path in tmp_path.iterdir()] == [disk.name]


async def test_a_guest_that_can_fetch_gets_only_the_url(tmp_path: Path) -> None:
    disk = tmp_path / "cidata.iso"
    async with a_data_source(user_data=b"a password") as source:
        await seed_disk.make(disk, source.url(), SeedMedium.HTTP)
        assert source.asked == []
        held = content(disk)
        assert yaml.safe_load(held.pop("meta-data")) == {"dsmode": "net", "seedfrom": source.url()}
        assert held == {"user-data": b""}, "cloud-init takes a disk only with this file"
    assert {"LABEL=cidata", "TYPE=iso9660"} <= blkid(disk)
    assert disk.stat().st_mode & 0o777 == 0o600, "a secret"


async def test_user_data_may_be_empty_but_is_there(tmp_path: Path) -> None:
    async with a_data_source(meta_data=b"instance-id: x\n", network_config=b"version: 2\n") as source:
        await seed_disk.make(tmp_path / "disk", source.url(), SeedMedium.DISK)
    assert set(content(tmp_path / "disk")) == {"meta-data", "user-data", "network-config"}


async def test_what_is_wrong_with_the_source_may_pass(tmp_path: Path) -> None:
    disk = tmp_path / "cidata.iso"
    async with a_data_source(user_data=bytes(seed_disk.MOST + 1)) as source:
        with pytest.raises(Temporary, match="404"):
            await seed_disk.make(disk, source.url("other"), SeedMedium.DISK)
        with pytest.raises(Temporary, match="bytes"):
            await seed_disk.make(disk, source.url(), SeedMedium.DISK)
    with pytest.raises(Temporary, match="does not answer"):
        await seed_disk.make(disk, source.url(), SeedMedium.DISK)
    assert list(tmp_path.iterdir()) == []


async def test_a_vm_waits_for_its_seed_and_gets_another_at_each_boot(node: Node, hypervisor: LibvirtHypervisor) -> None:
    image = raw_image(node.home / "base.raw").model_copy(update={"seed": SeedMedium.DISK})
    async with a_data_source(meta_data=b"instance-id: x\n", user_data=b"first") as source:
        source.away = True
        async with node.daemon(hypervisor):
            vm = await node.create(image=image, seed_url=source.url())
            disk = node.disks / vm / "cidata.iso"
            await eventually(lambda: source.asked, "it asks")
            assert not disk.exists()
            source.away = False
            await node.until(vm, on)
            assert not any(failed(report) for report in node.reports[vm])
            assert content(disk)["user-data"] == b"first"

            source.secrets, source.says["user-data"] = {"two"}, b"second"
            await node.change(vm, boots=2, seed_url=source.url("two"))
            await node.until(vm, lambda report: on(report) and report.boots == 2)
            assert content(disk)["user-data"] == b"second"
            await node.remove(vm)
            assert gone(node.reports[vm][-1])
            assert not disk.parent.exists()
