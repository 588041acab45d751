"""A stock Debian whose image asks for a seed disk, from its first boot over a reboot of its own to a watchdog's end.

It is configured by that disk, without a word over HTTP before it is ready. The tests are of one guest, in this order.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest
from websockets.asyncio.client import connect

from cli.local.image_build import ImageFile
from runtime.local.libvirtd import Libvirt
from tests.console.bed import browser, needs_browser
from tests.e2e.at_the_page import PERSON, logs_in, reads_what_it_wrote, sees_it_boot, signed_in, types_at_the_display
from tests.e2e.guests import Guest
from tests.e2e.platform import platform
from tests.e2e.test_boot import MARK, USER_DATA, image
from tests.waiting import eventually

__all__ = ["image"]

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(900)]

VMS = "/v1/projects/default/vms"

#: Start the watchdog (8086:25ab on PCI) with two seconds, and never feed it. Debian's kernel for clouds has no driver
#: for it, which would write the same: 4 to 0x60 for the fast clock and a reboot at the end, 2 to 0x68 to start it.
UNFED = r"""
cd "$(dirname "$(grep -l 0x25ab /sys/bus/pci/devices/*/device)")"
printf '\4\0' | dd of=config bs=2 seek=48 conv=notrunc
printf '\2' | dd of=config bs=1 seek=104 conv=notrunc
"""


@pytest.fixture(scope="module")
async def guest(libvirt_qemu: Libvirt, image: ImageFile) -> AsyncIterator[Guest]:
    """A guest whose user-data begins with a BOM, and which has a watchdog."""
    connection = libvirt.open("qemu:///system")
    async with platform() as up:
        source = {"id": "debian-12", "source": str(image.path), "sha256": image.sha256, "seed": "disk"}
        await up.succeed("POST", "/v1/images", source)
        size = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}
        ways = {"watchdog": "poweroff", "restart_policy": "on-failure", "user_data": f"\ufeff{USER_DATA}{PERSON}"}
        made = await up.succeed("POST", VMS, {"name": "web-1", "image": "debian-12", **size, **ways})
        vm = made["vm"]["id"]
        yield Guest(up, f"{VMS}/{vm}", connection.lookupByUUIDString(vm))
    connection.close()


async def at_its_console(guest: Guest) -> None:
    """What it wrote, its prompt for a login, and its display: from the node's own process."""
    token = (guest.up.home / "admin.token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    async with guest.up.client() as http:
        written = await http.get(f"{guest.path}/console-log?bytes=1000000")
    assert MARK in written.text
    url = f"ws{guest.up.url.removeprefix('http')}{guest.path}"
    async with asyncio.timeout(120):
        async with connect(f"{url}/console", additional_headers=headers, proxy=None) as socket:
            seen = b""
            while b"login: " not in seen:
                await socket.send(b"\r")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2):
                        seen += bytes(await socket.recv(decode=False))
        async with connect(f"{url}/vnc", additional_headers=headers, proxy=None) as socket:
            assert await socket.recv(decode=False) == b"RFB 003.008\n"


def shows(console: Path, text: str) -> bool:
    return text in console.read_text(errors="replace")


@needs_browser
async def test_a_person_at_its_page_sees_it_boot_and_logs_in(guest: Guest) -> None:
    faults: list[str] = []
    async with browser() as chromium:
        page = await signed_in(chromium, guest, faults)
        await sees_it_boot(page)
        await logs_in(page, "web-1", guest)
        await types_at_the_display(page)
        await guest.agent_answers()
        await reads_what_it_wrote(page, f"{MARK} on web-1")
        await page.context.close()
    assert faults == []


async def test_a_stock_image_takes_its_seed_from_a_disk(guest: Guest) -> None:
    domain = ET.fromstring(guest.domain.XMLDesc())
    serial = domain.findtext("sysinfo/system/entry[@name='serial']")
    assert serial == guest.vm, "no secret that any guest user can read"
    node = guest.up.home / "node"
    assert (node / "disks" / guest.vm / "cidata.iso").stat().st_mode & 0o077 == 0
    console = node / "consoles" / f"{guest.vm}.log"
    await guest.until_ready(1)
    for said in (f"{MARK} on web-1", "DataSourceNoCloud [seed=/dev/vd"):
        await eventually(partial(shows, console, said), said, 120)
    await at_its_console(guest)


async def test_a_reboot_from_inside_ends_ready_and_the_next_boot_brings_it_back(guest: Guest) -> None:
    """Without KVM it takes QEMU up to minutes to unpack a kernel over the code of another."""
    before = await guest.until_ready(1)
    await guest.agent_answers()
    await guest.runs("systemctl reboot")
    found = await guest.until_ready(2)
    assert (found["boots"], found["guest_boots"], found["restarts"], found["phase"]) == (1, 2, 0, "running")
    assert before["ready_at"] == found["first_ready_at"] < found["ready_at"]
    told = await guest.until_told(
        ["VmStarted", "VmGuestReady", "VmGuestRebooted", "VmGuestReady"],
        *("VmStarted", "VmGuestReady", "VmGuestRebooted", "VmStopped"),
    )
    assert (told[2]["data"]["resets"], told[2]["data"]["watchdog_resets"]) == (1, 0)
    then = await guest.up.call("GET", f"{guest.path}?at={told[2]['position']}")
    assert (then["phase"], then["ready"], then["ready_at"], then["guest_boots"]) == ("running", False, None, 2)
    assert then["first_ready_at"] == before["first_ready_at"]


async def test_a_watchdog_that_is_not_fed_powers_its_guest_off_and_the_policy_starts_it_again(guest: Guest) -> None:
    await guest.agent_answers()
    await guest.runs(UNFED)
    told = await guest.until_told(
        ["VmStarted", "VmStopped", "VmRestartScheduled", "VmRestartedByPolicy", "VmStarted"],
        *("VmStarted", "VmStopped", "VmRestartScheduled", "VmRestartedByPolicy"),
    )
    assert told[1]["data"]["cause"] == "watchdog"
    found = await guest.up.call("GET", f"{guest.path}?min_position={told[-1]['position']}")
    assert (found["phase"], found["ready"], found["boots"], found["guest_boots"]) == ("running", False, 2, 3)
    assert found["restarts"] == 1


async def test_nothing_is_left_of_it(guest: Guest) -> None:
    await guest.up.succeed("DELETE", guest.path)
    assert not list((guest.up.home / "node").rglob(f"*{guest.vm}*"))
