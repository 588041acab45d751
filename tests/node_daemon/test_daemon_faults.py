"""The daemon when something fails: what is an answer, what is tried again, what does not wait."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.contract import Desired, Power
from node_daemon.hypervisor.hypervisor import Boot, Have, Hypervisor, Nudge, Refused, Unreachable
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from runtime.tasks import gauge
from tests.image_server import serving
from tests.node_daemon.documents import MIB, qcow2_image, raw_image, source_of
from tests.node_daemon.harness import URI, Node, a_node, failed, off, on, paused, suspended
from tests.waiting import eventually


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

    async with node.daemon(Corrupt()):
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
        assert not (node.disks / small).exists(), "the seed disk was made at the same time"

        await node.change(vm, image=image, boots=2)
        await node.until(vm, on)
        await node.remove(vm, small)


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
    """The server waits at the half for the report, because the newest share replaces one that was not sent yet."""
    monkeypatch.setattr(gauge, "SECONDS", 0.0)
    halves = {f"image, {percent} % of 4 MiB" for percent in range(41, 51)}
    async with serving(os.urandom(4 * MIB)) as server:
        server.hold = 2 * MIB
        path = node.home / "far.raw"
        path.write_bytes(server.body)
        vm = await node.create(image=source_of(path, "raw", 4 * MIB, at=server.url))
        async with node.daemon(hypervisor):
            await node.until(vm, lambda report: report.step in halves)
            server.go_on.set()
            await node.until(vm, on)
            await node.remove(vm)
    steps = {report.step for report in node.reports[vm] if report.step}
    assert len(steps) < 10 + len({"image", "disk", "domain"}), steps


async def test_the_bus_restarts(servers_home: Path, connection: Any, hypervisor: LibvirtHypervisor) -> None:
    """Documents and reports go on where they were, and what changed meanwhile is told afterwards."""
    from runtime.local.servers import start_nats

    home = servers_home / "restarting"
    home.mkdir()
    server = await start_nats(home)
    async with a_node(home, server.url, URI) as node, node.daemon(hypervisor):
        vm, other = await node.create(), await node.create()
        await node.until(vm, on)
        await node.until(other, on)
        await eventually(lambda: connection.lookupByUUIDString(other).isPersistent(), "the domain is persistent")
        await server.kill()
        connection.lookupByUUIDString(other).destroy()
        await asyncio.sleep(0.5)
        server = await start_nats(home, port=server.port)
        await node.until(other, off)
        await node.change(vm, boots=2)
        await node.until(vm, lambda report: on(report) and report.boots == 2)
        await node.remove(vm, other)
    await server.stop()
