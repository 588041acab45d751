"""A real guest in rescue: it boots from the rescue image, has its own disk as the second one, and comes back.

The last disk is always the seed disk.
"""

import struct
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest

from runtime.local.libvirtd import Libvirt
from tests.e2e.platform import platform
from tests.node_daemon.echo import COM1, MIB, TAKES
from tests.waiting import eventually

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(600)]

VMS = "/v1/projects/default/vms"
LOADED, TEXT = 0x7C00, 0x100
#: Who made a PCI device, and what it is: a disk of virtio.
VIRTIO_DISK = 0x1042_1AF4


def boot_sector(says: bytes) -> bytes:
    """A guest of 512 bytes: it counts its disks, and says this on the serial port, with the number for the ?.

    It asks the PCI buses: a BIOS reads no disk but the first.
    """
    code = bytearray()

    def emit(*parts: int | bytes) -> None:
        for part in parts:
            code.extend(part if isinstance(part, bytes) else (part,))

    def word(number: int) -> bytes:
        return struct.pack("<H", number)

    def long(number: int) -> bytes:
        return struct.pack("<I", number)

    emit(0x31, 0xC0, 0x8E, 0xD8, 0xFC)  # xor ax, ax; mov ds, ax; cld
    emit(0x66, 0xBB, long(0x8000_0000), 0xB1, ord("0"))  # mov ebx, the first device; mov cl, "0"
    look = len(code)
    emit(0x66, 0x89, 0xD8, 0xBA, word(0xCF8), 0x66, 0xEF)  # mov eax, ebx; out it
    emit(0xBA, word(0xCFC), 0x66, 0xED, 0x66, 0x3D, long(VIRTIO_DISK))  # in eax; cmp eax, a disk
    emit(0x75, 2, 0xFE, 0xC1)  # jne; inc cl
    emit(0x66, 0x81, 0xC3, long(0x100), 0x66, 0x81, 0xFB, long(0x8100_0000))  # the next device, until the last
    emit(0x75, look - len(code) - 2 & 0xFF)
    text = LOADED + TEXT
    emit(0x88, 0x0E, word(text + says.index(b"?")), 0xBE, word(text))  # mov [?], cl; mov si, text
    say = len(code)
    emit(0xAC, 0x84, 0xC0, 0x74, 0, 0x88, 0xC4)  # lodsb; test al, al; jz over; mov ah, al
    emit(0xBA, word(COM1 + 5), 0xEC, 0xA8, TAKES, 0x74, 0xFB)  # wait until a byte can be written
    emit(0xBA, word(COM1), 0x88, 0xE0, 0xEE, 0xEB)  # write it; jmp say
    emit(say - len(code) - 1 & 0xFF)
    code[say + 4] = len(code) - say - 5
    emit(0xF4, 0xEB, 0xFD)  # over: hlt, for ever
    assert len(code) <= TEXT
    sector = bytes(code).ljust(TEXT, b"\0") + says + b"\r\n\0"
    return sector.ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB - 512)


def disks(domain: libvirt.virDomain) -> list[str]:
    sources = ET.fromstring(domain.XMLDesc()).iterfind("devices/disk/source")
    return [Path(source.attrib["file"]).name for source in sources]


async def test_in_rescue_a_guest_has_its_own_disk_as_the_second_and_comes_back_to_it(
    libvirt_qemu: Libvirt,
) -> None:
    connection = libvirt.open("qemu:///system")
    async with platform() as up:
        for image, text in (("own", b"I am the VM, disks: ?"), ("tools", b"I am the rescue, disks: ?")):
            (up.home / f"{image}.raw").write_bytes(boot_sector(text))
            await up.register(image, up.home / f"{image}.raw")
        size = {"vcpus": 1, "memory_mib": 64, "disk_gib": 1}
        made = await up.succeed("POST", VMS, {"name": "web-1", "image": "own", **size})
        vm = made["vm"]["id"]
        domain, seen = connection.lookupByUUIDString(vm), ""

        async def says(expected: str) -> None:
            """What the guest wrote in this boot, once it is that."""

            async def said() -> bool:
                async with up.client() as http:
                    written = (await http.get(f"{VMS}/{vm}/console-log?bytes=100000")).text
                assert written.startswith(seen)
                lines = [line for line in written[len(seen) :].splitlines() if line.startswith("I am ")]
                return lines == [expected]

            await eventually(said, f"{expected!r} on its console", seconds=120)

        async def so_far() -> str:
            async with up.client() as http:
                return (await http.get(f"{VMS}/{vm}/console-log?bytes=100000")).text

        await says("I am the VM, disks: 2")
        seen = await so_far()
        rescued = await up.succeed("POST", f"{VMS}/{vm}/rescue", {"image": "tools", "force": True})
        assert (rescued["vm"]["rescue"], rescued["vm"]["boots"]) == ("tools", 2)
        await says("I am the rescue, disks: 3")
        assert disks(domain) == ["rescue-2.qcow2", "root.qcow2", "cidata.iso"]

        seen = await so_far()
        await up.succeed("POST", f"{VMS}/{vm}/restart", {"force": True})
        await says("I am the rescue, disks: 3")

        seen = await so_far()
        back = await up.succeed("POST", f"{VMS}/{vm}/unrescue", {"force": True})
        assert (back["vm"]["rescue"], back["vm"]["boots"]) == (None, 4)
        await says("I am the VM, disks: 2")
        assert disks(domain) == ["root.qcow2", "cidata.iso"]
        files = {path.name for path in (up.home / "node" / "disks" / vm).iterdir()}
        assert files == {"root.qcow2", "cidata.iso"}
        await up.succeed("DELETE", f"{VMS}/{vm}")
    connection.close()
