"""The daemon as a process: killed at any moment, ended by SIGTERM, alone on its folder; on real QEMU."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import pytest

from domain.contract import Desired, Power
from node_daemon.hypervisor.host_names import HostNames
from runtime.local.libvirtd import Libvirt
from runtime.local.servers import NatsServer
from tests.image_server import serving
from tests.node_daemon.documents import MIB, qcow2_image, source_of
from tests.node_daemon.harness import Node, a_node, off, on
from tests.waiting import eventually

pytestmark = pytest.mark.qemu  # the test driver behind libvirtd outlives our process, so libvirtd it is

TEST = "test+unix:///default"


@pytest.fixture
def remote_test_driver(libvirt_qemu: Libvirt) -> Iterator[Any]:
    """Held open: the test driver forgets its domains with its last connection."""
    connection = libvirt.open(TEST)
    yield connection
    connection.close()


@pytest.fixture
async def node(servers_home: Path, nats_server: NatsServer, remote_test_driver: Any) -> AsyncIterator[Node]:
    async with a_node(servers_home, nats_server.url, TEST) as node:
        yield node


@pytest.fixture
async def qemu_node(servers_home: Path, nats_server: NatsServer, libvirt_qemu: Libvirt) -> AsyncIterator[Node]:
    async with a_node(servers_home, nats_server.url, libvirt_qemu.uri) as node:
        yield node


def leftovers(node: Node) -> list[str]:
    return [str(path) for folder in ("disks", "consoles") for path in (node.settings.data_dir / folder).iterdir()]


async def test_a_download_outlives_its_daemon(node: Node) -> None:
    async with serving(os.urandom(4 * MIB)) as server:
        server.stall = 2 * MIB
        far = node.home / "far.raw"
        far.write_bytes(server.body)
        vm = await node.create(image=source_of(far, "raw", 4 * MIB, at=server.url))
        images = node.settings.data_dir / "images"

        def half_there() -> bool:
            return sum(part.stat().st_size for part in images.glob("*.part")) >= MIB

        async with node.process():
            await eventually(half_there, "half of what comes")
        there = sum(part.stat().st_size for part in images.glob("*.part"))
        server.stall = None
        async with node.process():
            await node.until(vm, on)
            assert [asked.get("range") for asked in server.requests] == [None, f"bytes={there}-"]
            assert [path.read_bytes() for path in images.iterdir()] == [server.body]
            await node.remove(vm)


async def test_killed_again_and_again(node: Node, remote_test_driver: Any) -> None:
    vms = [await node.create() for _ in range(10)]
    async with node.process():
        await eventually(lambda: node.reports, "the first report")
    for milliseconds in (5, 20, 60):
        for vm in vms:
            await node.change(vm, boots=node.documents[vm].boots + 1)
        beats = len(node.heartbeats)
        async with node.process():
            await eventually(lambda beats=beats: len(node.heartbeats) > beats, "the daemon is up")  # type: ignore[misc]
            await asyncio.sleep(milliseconds / 1000)
    async with node.process():
        for vm in vms:
            boots = node.documents[vm].boots
            await node.until(vm, lambda report, boots=boots: on(report) and report.boots == boots)  # type: ignore[misc]
        mine = [domain for domain in remote_test_driver.listAllDomains() if domain.UUIDString() in vms]
        assert len(mine) == 10
    for vm in vms:
        await node.change(vm, desired=Desired.ABSENT)
    async with node.process():
        await eventually(lambda: node.reports, "reports")
        await asyncio.sleep(0.02)
    async with node.process():
        await node.remove(*vms)
    assert leftovers(node) == []


async def test_sigterm_ends_it_and_leaves_guests_alone(node: Node, remote_test_driver: Any) -> None:
    async with node.process() as process:
        vm = await node.create()
        await node.until(vm, on)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert remote_test_driver.lookupByUUIDString(vm).isActive()
    async with node.process():
        await node.remove(vm)


async def test_a_second_daemon_on_the_same_folder_gives_up(node: Node) -> None:
    async with node.process():
        await eventually(lambda: node.heartbeats, "the first daemon is up")
        async with node.process() as second:
            assert await second.wait() == 2


async def test_qemu_runs_on_what_a_disk_was_made_from(
    servers_home: Path, nats_server: NatsServer, libvirt_qemu: Libvirt
) -> None:
    """One disk from the time when images were kept as they came, one from after that."""
    connection = libvirt.open(libvirt_qemu.uri)

    def under(vm: str) -> tuple[str | None, bool]:
        """The format of the image under the VM's disk, and whether the guest runs."""
        domain = connection.lookupByUUIDString(vm)
        format_ = ET.fromstring(domain.XMLDesc()).find("devices/disk/backingStore/format")
        return None if format_ is None else format_.get("type"), domain.isActive()

    async with a_node(servers_home, nats_server.url, libvirt_qemu.uri, image_base="source") as node:
        async with node.process():
            old = await node.create(image=qcow2_image(node.home / "old.qcow2"))
            await node.until(old, on)
            assert under(old) == ("qcow2", True)
        node.settings = node.settings.model_copy(update={"image_base": "raw"})
        async with node.process():
            await node.change(old, boots=2, force_after=datetime.now(UTC))
            new = await node.create(image=qcow2_image(node.home / "new.qcow2", 2 * MIB))
            await node.until(new, on)
            assert under(new) == ("raw", True)
            await node.until(old, lambda report: on(report) and report.boots == 2)
            assert under(old) == ("qcow2", True)
            await node.remove(old, new)
    connection.close()


async def test_a_life_on_qemu(qemu_node: Node, libvirt_qemu: Libvirt) -> None:
    """No operating system: the guest hears no shutdown, so the plug is pulled when its time is over."""
    node = qemu_node
    connection = libvirt.open(libvirt_qemu.uri)
    async with node.process():
        vm = await node.create()
        await node.until(vm, on)
        domain = connection.lookupByUUIDString(vm)
        first = domain.ID()
        await node.change(vm, boots=2, force_after=datetime.now(UTC) + timedelta(seconds=1))
        await node.until(vm, lambda report: on(report) and report.boots == 2)
        assert connection.lookupByUUIDString(vm).ID() != first
        assert (node.settings.data_dir / "consoles" / f"{vm}.log").exists()
        base = next((node.settings.data_dir / "images").iterdir()).stat()
        assert (base.st_uid, base.st_mode & 0o777) == (0, 0o444), "no guest's QEMU may write to the image of all"
        await node.change(vm, desired=Desired.PAUSED)
        await node.until(vm, lambda report: report.power is Power.PAUSED)
        await node.change(vm, desired=Desired.SUSPENDED)
        await node.until(vm, lambda report: report.power is Power.SUSPENDED)
        await node.change(vm, desired=Desired.ON, resume=True)
        assert (await node.until(vm, on)).boots == 2
        await node.change(vm, desired=Desired.OFF, resume=False, force_after=datetime.now(UTC) + timedelta(seconds=1))
        await node.until(vm, off)
        await node.change(vm, desired=Desired.ON, boots=3, disk=2, disk_gib=2, force_after=None)
        assert (await node.until(vm, on)).boots == 3
        assert [path.name for path in (node.disks / vm).glob("*.qcow2")] == ["root-2.qcow2"]
    names = HostNames(node.settings.data_dir.resolve())
    async with node.process() as process:
        seen = len(node.reports[vm])
        await eventually(lambda: len(node.reports[vm]) > seen, "the running domain is adopted")
        report = await node.until(vm, on)
        assert report.boots == 3
        assert connection.lookupByUUIDString(vm).isActive()
        await eventually(lambda: rules_of(names) == ["chain", "table"], "the guest is closed in")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert rules_of(names) == ["chain", "table"], "the guest runs, and stays closed in"
    async with node.process() as process:
        await node.remove(vm)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert rules_of(names) == [], "a daemon without guests leaves nothing on its host"
    assert leftovers(node) == []
    connection.close()


def rules_of(names: HostNames) -> list[str]:
    """What protects the host from the guests of a node."""
    listed = subprocess.check_output(["iptables", "-S"])
    found = ["chain"] if names.word.encode() in listed else []
    tables = subprocess.check_output(["nft", "list", "tables", "bridge"], text=True)
    return [*found, "table"] if f"nebula-{names.word}\n" in tables else found


async def test_a_qemu_that_dies_is_reported_as_crashed(qemu_node: Node, libvirt_qemu: Libvirt) -> None:
    node = qemu_node
    async with node.process():
        vm = await node.create()
        await node.until(vm, on)
        connection = libvirt.open(libvirt_qemu.uri)
        await eventually(lambda: connection.lookupByUUIDString(vm).isPersistent(), "the domain is persistent")
        connection.close()
        pids = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if path.read_bytes().startswith(b"/usr/bin/qemu-system") and vm.encode() in path.read_bytes()
        ]
        assert len(pids) == 1
        import os

        os.kill(pids[0], signal.SIGKILL)
        assert (await node.until(vm, off)).cause == "crashed"
        assert node.reports[vm][-1].power is Power.OFF
        await node.remove(vm)
