"""Serial console and display of a real guest; and what libvirt's test driver, which has neither, says."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import libvirt
import pytest

from node_daemon.hypervisor.channels import MOST_WAITING
from node_daemon.hypervisor.hypervisor import Boot, Busy, Channel, Refused
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from runtime.images.qemu_img import qemu_img
from runtime.local.libvirtd import Libvirt
from tests.node_daemon.documents import new_vm, wanted
from tests.node_daemon.echo import GREETING, write_disk


@pytest.fixture
async def hypervisor(libvirt_qemu: Libvirt) -> AsyncIterator[LibvirtHypervisor]:
    hypervisor = LibvirtHypervisor(libvirt_qemu.uri, "default", "qemu", deadline=60)
    yield hypervisor
    hypervisor.close()


@pytest.fixture
async def guest(hypervisor: LibvirtHypervisor, servers_home: Path) -> AsyncIterator[str]:
    """A VM that echoes what it is told; its id."""
    vm = new_vm()
    base = write_disk(servers_home / f"{vm}.raw")
    disk = base.with_suffix(".qcow2")
    await qemu_img("create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(disk))
    await hypervisor.start(Boot(wanted(vm), str(disk), str(base), "raw", str(disk.with_suffix(".log")), "host-boot"))
    await hypervisor.persist(vm)
    yield vm
    await hypervisor.destroy(vm)
    await hypervisor.undefine(vm)


async def until(console: Channel, expected: bytes) -> bytes:
    """All that is read up to what is expected."""
    data = b""
    async with asyncio.timeout(30):
        while expected not in data:
            piece = await console.read()
            assert piece, f"it ended after {data!r}"
            data += piece
    return data


async def speaks(console: Channel) -> None:
    """Ask until it answers: a guest that is still booting hears nothing."""
    answered = asyncio.create_task(until(console, b"HELLO"))
    while not answered.done():
        await console.write(b"hello")
        await asyncio.wait({answered}, timeout=0.2)
    await answered


@pytest.mark.qemu
async def test_both_ways_for_one_at_a_time(hypervisor: LibvirtHypervisor, guest: str, servers_home: Path) -> None:
    first = await hypervisor.open_console(guest, force=False)
    await speaks(first)
    with pytest.raises(Busy):
        await hypervisor.open_console(guest, force=False)
    second = await hypervisor.open_console(guest, force=True)
    async with asyncio.timeout(120):
        while await first.read():
            pass
    await first.close()
    await first.close()
    await second.write(b"\x03taken over\r")
    assert b"\x03TAKEN OVER\r" in await until(second, b"OVER\r")
    await second.close()
    assert await second.read() == b""
    assert GREETING in (servers_home / f"{guest}.log").read_bytes(), "the log has all of it"
    third = await hypervisor.open_console(guest, force=False)
    await third.close()


@pytest.mark.qemu
async def test_it_ends_with_the_guest(hypervisor: LibvirtHypervisor, guest: str) -> None:
    console = await hypervisor.open_console(guest, force=False)
    await speaks(console)
    await hypervisor.destroy(guest)
    async with asyncio.timeout(120):
        while await console.read():
            pass
    await console.write(b"nobody there")
    await console.close()
    with pytest.raises(Refused) as caught:
        await hypervisor.open_console(guest, force=False)
    assert not isinstance(caught.value, Busy)


@pytest.mark.qemu
async def test_what_nobody_reads_does_not_pile_up(hypervisor: LibvirtHypervisor, guest: str) -> None:
    console = await hypervisor.open_console(guest, force=False)
    await speaks(console)
    console._on_data(b"x" * (MOST_WAITING + 7))  # type: ignore[attr-defined]
    data = await console.read()
    assert data.count(b"x") <= MOST_WAITING
    assert b"bytes dropped" in data
    await console.write(b"and on")
    await until(console, b"AND ON")
    await console.close()


@pytest.mark.qemu
async def test_a_guest_that_takes_nothing_holds_nobody_up(hypervisor: LibvirtHypervisor, guest: str) -> None:
    """libvirt takes whatever it is given, and lets go only once the guest has taken it."""
    first = await hypervisor.open_console(guest, force=False)
    async with asyncio.timeout(20):
        await first.write(b"y" * 16 * 1024)
        await first.close()
        second = await hypervisor.open_console(guest, force=False)
        await speaks(second)
    await second.close()


@pytest.mark.qemu
async def test_a_display_is_seen_by_as_many_as_like_to(hypervisor: LibvirtHypervisor, guest: str) -> None:
    displays = [await hypervisor.open_display(guest) for _ in range(3)]
    for display in displays:
        assert await until(display, b"\n") == b"RFB 003.008\n"
        await display.write(b"RFB 003.008\n")
        assert await until(display, b"\1\1") == b"\1\1", "one way to authenticate: none"
        await display.write(b"\1")
    await displays[0].close()
    assert await displays[1].read() == bytes(4), "in"
    await hypervisor.destroy(guest)
    async with asyncio.timeout(120):
        while await displays[1].read():
            pass
    await displays[1].write(b"nobody there")
    with pytest.raises(Refused):
        await hypervisor.open_display(guest)


async def test_a_driver_without_consoles_says_so() -> None:
    connection = libvirt.open("test:///default")
    hypervisor = LibvirtHypervisor("test:///default", "default", "test", deadline=60)
    with pytest.raises(Refused):
        await hypervisor.open_console(new_vm(), force=False)
    with pytest.raises(Refused):
        await hypervisor.open_display(new_vm())
    hypervisor.close()
    connection.close()
