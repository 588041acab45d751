"""A stock Debian whose image asks for a seed disk: configured by it, without a word over HTTP before it is ready."""

import asyncio
import contextlib
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest
from websockets.asyncio.client import connect

from cli.image_build import ImageFile
from runtime.libvirtd import Libvirt
from tests.e2e.platform import Platform, platform
from tests.e2e.test_boot import MARK, USER_DATA, image
from tests.waiting import eventually

__all__ = ["image"]

pytestmark = pytest.mark.qemu

VMS = "/v1/projects/default/vms"


async def at_its_console(up: Platform, vm: str) -> None:
    """What it wrote, its prompt for a login, and its display: from the node's own process."""
    token = (up.home / "admin.token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    async with up.client() as http:
        written = await http.get(f"{VMS}/{vm}/console-log?bytes=1000000")
    assert MARK in written.text
    url = f"ws{up.url.removeprefix('http')}{VMS}/{vm}"
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


async def test_a_stock_image_takes_its_seed_from_a_disk(libvirt_qemu: Libvirt, image: ImageFile) -> None:
    async with platform() as up:
        body = {"id": "debian-12", "source": str(image.path), "sha256": image.sha256, "seed": "disk"}
        await up.succeed("POST", "/v1/images", body)
        size = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}
        made = await up.succeed(
            "POST", VMS, {"name": "web-1", "image": "debian-12", **size, "user_data": f"\ufeff{USER_DATA}"}
        )
        vm = made["vm"]["id"]

        connection = libvirt.open("qemu:///system")
        domain = ET.fromstring(connection.lookupByUUIDString(vm).XMLDesc())
        connection.close()
        assert domain.findtext("sysinfo/system/entry[@name='serial']") == vm, "no secret that any guest user can read"
        disk = up.home / "node" / "disks" / vm / "cidata.iso"
        assert disk.stat().st_mode & 0o077 == 0
        console = up.home / "node" / "consoles" / f"{vm}.log"

        async def ready() -> bool:
            return bool((await up.call("GET", f"{VMS}/{vm}"))["ready"])

        try:
            await eventually(ready, "guest ready", seconds=400)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{console.read_text(errors='replace')[-4000:]}") from None
        for said in (f"{MARK} on web-1", "DataSourceNoCloud [seed=/dev/vd"):
            await eventually(partial(shows, console, said), said, 120)
        await at_its_console(up, vm)
        await up.succeed("DELETE", f"{VMS}/{vm}")
        assert not list((up.home / "node").rglob(f"*{vm}*"))
