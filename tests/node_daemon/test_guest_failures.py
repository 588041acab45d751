"""What befalls guests under real QEMU without anybody's asking: a kernel that panics, a reset, a watchdog."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from domain.contract import Power, Watchdog
from node_daemon.hypervisor.hypervisor import Boot, Channel
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from runtime.images.qemu_img import qemu_img
from runtime.local.libvirtd import Libvirt
from runtime.tasks.tasks import end
from tests.node_daemon import moody_guest
from tests.node_daemon.documents import new_vm, wanted
from tests.waiting import eventually

pytestmark = pytest.mark.qemu


class Guest:
    """A guest under QEMU that does what it is told."""

    def __init__(self, hypervisor: LibvirtHypervisor, vm: str) -> None:
        self.hypervisor = hypervisor
        self.vm = vm
        self._console: Channel | None = None
        self._said = 0.0

    async def say(self, word: bytes) -> None:
        """Tell it, once a second at most. The console stays open: what it has not read when that closes is lost."""
        if time.monotonic() - self._said < 1.0:
            return
        if self._console is None:
            self._console = await self.hypervisor.open_console(self.vm, force=True)
        await self._console.write(word)
        self._said = time.monotonic()

    async def end(self) -> None:
        if self._console is not None:
            await self._console.close()
        await self.hypervisor.destroy(self.vm)
        await self.hypervisor.undefine(self.vm)
        self.hypervisor.close()


@pytest.fixture
async def guest(servers_home: Path, libvirt_qemu: Libvirt, request: pytest.FixtureRequest) -> AsyncIterator[Guest]:
    """`request`: its watchdog."""
    document = {"watchdog": getattr(request, "param", Watchdog.DISABLED)}
    hypervisor, vm = LibvirtHypervisor("qemu:///system", "default", "qemu", deadline=60), new_vm()
    disk, base = servers_home / f"{vm}.qcow2", moody_guest.write_disk(servers_home / "moody.raw")
    await qemu_img("create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(disk))
    await hypervisor.start(
        Boot(wanted(vm, **document), str(disk), str(base), "raw", str(disk.with_suffix(".log")), "host-boot")
    )
    await hypervisor.persist(vm)
    made = Guest(hypervisor, vm)
    yield made
    await made.end()


async def test_a_panic_is_a_crash(guest: Guest) -> None:
    async def crashed() -> bool:
        seen = await guest.hypervisor.look(guest.vm)
        if seen.power is Power.ON:  # it may not listen yet
            await guest.say(moody_guest.PANIC)
        return (seen.power, seen.cause) == (Power.OFF, "crashed")

    await eventually(crashed, "crashed", seconds=60)


async def test_a_reset_from_inside_is_told(guest: Guest) -> None:
    resets: list[str] = []
    watch = asyncio.create_task(guest.hypervisor.watch(lambda _: None, resets.append))

    async def told() -> bool:
        if not resets:  # it may not listen yet
            await guest.say(moody_guest.RESET)
        return guest.vm in resets

    await eventually(told, "told", seconds=60)
    assert (await guest.hypervisor.look(guest.vm)).power is Power.ON
    await end([watch])


@asynccontextmanager
async def heard(guest: Guest) -> AsyncIterator[list[object]]:
    """What is told of resets (the VM) and of watchdogs (the VM and what its one does), from now on."""
    told: list[object] = []
    listens = asyncio.Event()
    watching = guest.hypervisor.watch(
        lambda vm: listens.set() if vm is None else None, told.append, lambda vm, action: told.append((vm, action))
    )
    watch = asyncio.create_task(watching)
    try:
        await listens.wait()
        yield told
    finally:
        await end([watch])


@pytest.mark.parametrize("guest", [Watchdog.RESET], indirect=True)
async def test_a_watchdog_resets_a_guest_that_hangs(guest: Guest) -> None:
    async with heard(guest) as told:

        async def reset() -> bool:
            if not told:  # the guest may not listen yet
                await guest.say(moody_guest.HANG)
            return guest.vm in told

        await eventually(reset, "a reset", seconds=60)
    assert told[:2] == [(guest.vm, Watchdog.RESET), guest.vm], "the watchdog is told of first"
    assert (await guest.hypervisor.look(guest.vm)).power is Power.ON


@pytest.mark.parametrize("guest", [Watchdog.POWEROFF], indirect=True)
async def test_a_watchdog_that_powers_a_guest_off(guest: Guest) -> None:
    """libvirt itself takes that for a crash: it is told of the watchdog just before."""
    async with heard(guest) as told:

        async def off() -> bool:
            seen = await guest.hypervisor.look(guest.vm)
            if seen.power is Power.ON and not told:  # the guest may not listen yet
                await guest.say(moody_guest.HANG)
            return (seen.power, seen.cause) == (Power.OFF, "crashed")

        await eventually(off, "off", seconds=60)
        await eventually(lambda: told == [(guest.vm, Watchdog.POWEROFF)], "told")
