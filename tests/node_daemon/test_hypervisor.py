"""What every hypervisor behind libvirt must do: one suite for libvirt's test driver and for real QEMU."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from domain.contract import Firmware, Power
from node_daemon.domain_xml import VirtType, domain_name
from node_daemon.hypervisor import Boot, Have, Refused, Unreachable
from node_daemon.libvirt_adapter import LibvirtHypervisor, _check_uefi
from node_daemon.qemu_img import qemu_img
from runtime.libvirtd import Libvirt
from runtime.tasks import end
from tests.node_daemon.documents import MIB, new_vm, raw_image, wanted
from tests.waiting import eventually

TEST = ("test:///default", "test")
QEMU = ("qemu:///system", "qemu")


@pytest.fixture(params=[TEST, pytest.param(QEMU, marks=pytest.mark.qemu)], ids=["test", "qemu"])
def driver(request: pytest.FixtureRequest) -> Iterator[tuple[str, VirtType, Any]]:
    """URI, domain type, and a connection of the test's own: the test driver forgets all with its last one."""
    uri, virt_type = request.param
    if virt_type == "qemu":
        request.getfixturevalue("libvirt_qemu")
    connection = libvirt.open(uri)
    yield uri, virt_type, connection
    connection.close()


@pytest.fixture
async def hypervisor(driver: tuple[str, VirtType, Any]) -> AsyncIterator[LibvirtHypervisor]:
    hypervisor = LibvirtHypervisor(driver[0], "default", driver[1], deadline=60)
    yield hypervisor
    hypervisor.close()


@pytest.fixture
async def boot(hypervisor: LibvirtHypervisor, servers_home: Path) -> AsyncIterator[Boot]:
    """A VM with an empty disk, taken away again."""
    vm = new_vm()
    disk = servers_home / f"{vm}.qcow2"
    base = servers_home / "base.raw"
    base.write_bytes(bytes(MIB))
    await qemu_img("create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(disk))
    yield Boot(wanted(vm), str(disk), str(base), "raw", str(disk.with_suffix(".log")), "host-boot")
    await hypervisor.destroy(vm)
    await hypervisor.undefine(vm)


async def test_nothing(hypervisor: LibvirtHypervisor) -> None:
    vm = new_vm()
    assert await hypervisor.look(vm) == Have(vm=vm, power=Power.ABSENT)
    assert vm not in await hypervisor.domains()
    await hypervisor.shutdown(vm)
    await hypervisor.pause(vm)
    await hypervisor.unpause(vm)
    await hypervisor.suspend(vm, 60)
    await hypervisor.restore(vm, "host-boot", 60)
    await hypervisor.discard(vm)
    await hypervisor.destroy(vm)
    await hypervisor.undefine(vm)


async def test_a_life(hypervisor: LibvirtHypervisor, boot: Boot) -> None:
    vm = boot.wanted.vm
    started = await hypervisor.start(boot)
    assert started == Have(vm, Power.ON, boots=1, epoch=1, generation=1, host_boot="host-boot", kept=False)
    assert await hypervisor.look(vm) == started
    await hypervisor.keep(vm)
    await hypervisor.keep(vm)
    assert await hypervisor.look(vm) == replace(started, kept=True)
    assert (await hypervisor.domains())[vm] == replace(started, kept=True)
    await hypervisor.destroy(vm)
    await hypervisor.destroy(vm)
    assert await hypervisor.look(vm) == replace(started, power=Power.OFF, kept=True)

    again = replace(boot, wanted=boot.wanted.model_copy(update={"boots": 2}))
    restarted = await hypervisor.start(again)
    assert (restarted.boots, restarted.kept) == (2, False)
    assert await hypervisor.look(vm) == restarted
    with pytest.raises(Refused):
        await hypervisor.start(again)
    await hypervisor.keep(vm)
    assert (await hypervisor.look(vm)).kept
    await hypervisor.destroy(vm)
    await hypervisor.undefine(vm)
    assert await hypervisor.look(vm) == Have(vm=vm, power=Power.ABSENT)


async def test_a_guest_stands_still_and_goes_on(hypervisor: LibvirtHypervisor, boot: Boot) -> None:
    vm = boot.wanted.vm
    await hypervisor.start(boot)
    await hypervisor.pause(vm)
    await hypervisor.pause(vm)
    assert (await hypervisor.look(vm)).power is Power.PAUSED
    assert not (await hypervisor.look(vm)).kept
    await hypervisor.keep(vm)
    paused = await hypervisor.look(vm)
    assert (paused.power, paused.kept, paused.stalled, paused.boots) == (Power.PAUSED, True, False, 1)
    await hypervisor.unpause(vm)
    await hypervisor.unpause(vm)
    assert (await hypervisor.look(vm)).power is Power.ON
    await hypervisor.pause(vm)
    await hypervisor.destroy(vm)
    assert (await hypervisor.look(vm)).power is Power.OFF


@pytest.mark.parametrize("paused", [False, True])
async def test_a_guest_is_suspended_and_goes_on(hypervisor: LibvirtHypervisor, boot: Boot, paused: bool) -> None:
    vm = boot.wanted.vm
    await hypervisor.start(boot)
    with pytest.raises(Refused):
        await hypervisor.suspend(vm, 60)
    await hypervisor.keep(vm)
    if paused:
        await hypervisor.pause(vm)
    await hypervisor.suspend(vm, 60)
    await hypervisor.suspend(vm, 60)
    seen = await hypervisor.look(vm)
    assert (seen.power, seen.boots, seen.generation, seen.host_boot) == (Power.SUSPENDED, 1, 1, "host-boot")
    assert (await hypervisor.domains())[vm] == seen
    await hypervisor.restore(vm, "the next boot", 60)
    await hypervisor.restore(vm, "the next boot", 60)
    await hypervisor.unpause(vm)
    again = await hypervisor.look(vm)
    assert (again.power, again.boots, again.kept) == (Power.ON, 1, True)
    await hypervisor.destroy(vm)
    off = await hypervisor.look(vm)
    assert (off.power, off.boots, off.host_boot) == (Power.OFF, 1, "the next boot")


async def test_what_is_suspended_can_be_thrown_away(hypervisor: LibvirtHypervisor, boot: Boot) -> None:
    vm = boot.wanted.vm
    await hypervisor.start(boot)
    await hypervisor.keep(vm)
    await hypervisor.suspend(vm, 60)
    await hypervisor.discard(vm)
    await hypervisor.discard(vm)
    assert (await hypervisor.look(vm)).power is Power.OFF
    await hypervisor.start(replace(boot, wanted=boot.wanted.model_copy(update={"boots": 2})))
    await hypervisor.keep(vm)
    await hypervisor.suspend(vm, 60)
    await hypervisor.undefine(vm)
    assert await hypervisor.look(vm) == Have(vm=vm, power=Power.ABSENT)


async def test_a_domain_that_was_never_kept_is_gone_once_off(hypervisor: LibvirtHypervisor, boot: Boot) -> None:
    await hypervisor.start(boot)
    await hypervisor.destroy(boot.wanted.vm)
    assert (await hypervisor.look(boot.wanted.vm)).power is Power.ABSENT


NVRAM = Path("/var/lib/libvirt/qemu/nvram")


async def test_uefi_with_its_own_memory(driver: tuple[str, VirtType, Any], servers_home: Path) -> None:
    """Kept, started anew, suspended and removed like any other; what it remembers of its settings goes with it."""
    hypervisor = LibvirtHypervisor(driver[0], "default", driver[1], deadline=60)
    image = raw_image(servers_home / "uefi.raw").model_copy(update={"firmware": Firmware.UEFI})
    vm = new_vm()
    disk = servers_home / f"{vm}.qcow2"
    await qemu_img("create", "-q", "-f", "qcow2", "-b", image.source, "-F", "raw", str(disk))
    boot = Boot(wanted(vm, image=image), str(disk), image.source, "raw", str(disk.with_suffix(".log")), "host-boot")
    for boots in (1, 2):
        await hypervisor.start(replace(boot, wanted=boot.wanted.model_copy(update={"boots": boots})))
        await hypervisor.keep(vm)
        seen = await hypervisor.look(vm)
        assert (seen.power, seen.boots, seen.kept) == (Power.ON, boots, True)
        await hypervisor.suspend(vm, 60)
        await hypervisor.restore(vm, "host-boot", 60)
        assert (await hypervisor.look(vm)).power is Power.ON
        await hypervisor.destroy(vm)
    await hypervisor.undefine(vm)
    assert (await hypervisor.look(vm)).power is Power.ABSENT
    if driver[1] == "qemu":
        assert not list(NVRAM.glob(f"*{vm}*"))
    hypervisor.close()


class WithoutUefi:
    """A connection to a libvirt that has no firmware files."""

    def getDomainCapabilities(self, *_: object) -> str:
        return "<domainCapabilities><os supported='yes'><enum name='firmware'/></os></domainCapabilities>"


def test_without_uefi_it_says_which_package_helps() -> None:
    with pytest.raises(Refused, match="ovmf") as caught:
        _check_uefi(WithoutUefi(), "qemu")
    assert caught.value.invalid


async def test_foreign_domains_are_seen_and_never_touched(
    driver: tuple[str, VirtType, Any], hypervisor: LibvirtHypervisor
) -> None:
    _, virt_type, connection = driver
    same_uuid, same_name = new_vm(), new_vm()
    xml = "<domain type='{}'><name>{}</name><uuid>{}</uuid><memory>65536</memory><os><type>hvm</type></os></domain>"
    domains = [
        connection.defineXML(xml.format(virt_type, f"foreign-{same_uuid}", same_uuid)),
        connection.defineXML(xml.format(virt_type, domain_name(same_name), uuid.uuid4())),
    ]
    try:
        for vm in (same_uuid, same_name):
            assert (await hypervisor.look(vm)).foreign
            assert vm not in await hypervisor.domains()
            await hypervisor.destroy(vm)
            await hypervisor.undefine(vm)
            assert (await hypervisor.look(vm)).foreign
    finally:
        for domain in domains:
            domain.undefine()


async def test_what_libvirt_will_never_do(hypervisor: LibvirtHypervisor, boot: Boot) -> None:
    with pytest.raises(Refused) as caught:
        await hypervisor.start(replace(boot, wanted=boot.wanted.model_copy(update={"mac": "not a mac"})))
    assert caught.value.invalid


async def test_events_nudge(hypervisor: LibvirtHypervisor, boot: Boot) -> None:
    nudges: list[str | None] = []
    watch = asyncio.create_task(hypervisor.watch(nudges.append))
    await eventually(lambda: nudges == [None], "the nudge after connecting")
    await hypervisor.start(boot)
    await eventually(lambda: boot.wanted.vm in nudges, "the nudge of the start")
    await end([watch])


async def test_capacity_and_network(hypervisor: LibvirtHypervisor) -> None:
    capacity = await hypervisor.capacity()
    assert capacity.vcpus > 0
    assert capacity.memory_mib > 64
    await hypervisor.ensure_network()
    assert await hypervisor.addresses(new_vm(), "52:54:00:00:00:01") == ()


async def test_a_missing_network_is_refused(driver: tuple[str, VirtType, Any]) -> None:
    hypervisor = LibvirtHypervisor(driver[0], "no-such-network", driver[1], deadline=60)
    with pytest.raises(Refused):
        await hypervisor.ensure_network()
    hypervisor.close()


async def test_nobody_answers() -> None:
    hypervisor = LibvirtHypervisor("test+unix:///default?socket=/nonexistent", "default", "test", deadline=60)
    with pytest.raises(Unreachable):
        await hypervisor.look(new_vm())


@asynccontextmanager
async def doorway(socket: Path) -> AsyncIterator[None]:
    """A way to libvirtd that is shut, for all who are inside as well, when left."""
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection("/run/libvirt/libvirt-sock")
        writers.extend((writer, back))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_unix_server(enter, socket)
    yield
    server.close()
    for writer in writers:
        writer.transport.abort()
    socket.unlink(missing_ok=True)


@pytest.mark.qemu
async def test_libvirtd_goes_and_comes_back(libvirt_qemu: Libvirt, tmp_path: Path) -> None:
    socket = tmp_path / "libvirt-sock"
    connection = libvirt.open("test+unix:///default")
    hypervisor = LibvirtHypervisor(f"test+unix:///default?socket={socket}", "default", "test", deadline=60)
    nudges: list[str | None] = []
    watch = asyncio.create_task(hypervisor.watch(nudges.append))
    await eventually(lambda: nudges.count(None) == 1, "told that it is away")
    boot = Boot(wanted(new_vm()), "/disk", "/base", "raw", "/console", "host-boot")
    async with doorway(socket):
        await eventually(lambda: nudges.count(None) == 2, "told that it is there")
        await hypervisor.start(boot)
        await eventually(lambda: boot.wanted.vm in nudges, "events arrive")
    with pytest.raises(Unreachable):
        await hypervisor.look(boot.wanted.vm)
    await eventually(lambda: nudges.count(None) == 3, "told that it is away again")
    nudges.clear()
    async with doorway(socket):
        assert (await hypervisor.look(boot.wanted.vm)).power is Power.ON
        await eventually(lambda: None in nudges, "told that it is there again")
        await hypervisor.destroy(boot.wanted.vm)
        await eventually(lambda: boot.wanted.vm in nudges, "events arrive again")
        await end([watch])
        hypervisor.close()
    connection.close()


async def test_a_hung_call_holds_up_nobody_else() -> None:
    """A listener that takes connections and never says a word, as a stuck libvirtd does."""
    hypervisor = LibvirtHypervisor("test:///default", "default", "test", deadline=0.2)
    connections = hypervisor._connections
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_: Any) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    with pytest.raises(Unreachable):
        await connections.call("one", hang)
    with pytest.raises(Unreachable):
        await connections.call("one", lambda _: None)
    assert await connections.call("another", lambda connection: connection.isAlive()) == 1
    release.set()
    await eventually(lambda: "one" not in connections._hung, "the call's return")
    assert await connections.call("one", lambda connection: connection.isAlive()) == 1
    hypervisor.close()
