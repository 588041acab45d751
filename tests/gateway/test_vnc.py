"""The display of a real guest, in VNC's own words (RFB 3.8): over a WebSocket, and from a port on loopback."""

import asyncio
import os
import signal
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from runtime.local.libvirtd import Libvirt
from tests.gateway.echo_guest import Guest, a_guest
from tests.gateway.platform import VMS, Platform
from tests.gateway.test_console import ended, refused

pytestmark = pytest.mark.qemu

Read = Callable[[int], Awaitable[bytes]]
Write = Callable[[bytes], Awaitable[object]]


@pytest.fixture(scope="module")
async def guest(api: Platform, servers_home: Path, libvirt_qemu: Libvirt) -> AsyncIterator[Guest]:
    async with a_guest(api, servers_home) as guest:
        yield guest


def reader(receive: Callable[[], Awaitable[bytes]]) -> Read:
    """Exactly as many bytes as asked for, however they are cut into messages."""
    held = bytearray()

    async def read(size: int) -> bytes:
        async with asyncio.timeout(30):
            while len(held) < size:
                held.extend(await receive())
        data = bytes(held[:size])
        del held[:size]
        return data

    return read


async def look(read: Read, write: Write) -> tuple[str, int]:
    """The handshake, and one picture: the display's name, and the bytes of the picture."""
    assert await read(12) == b"RFB 003.008\n"
    await write(b"RFB 003.008\n")
    assert await read(2) == b"\1\1", "one security type: none"
    await write(b"\1")
    assert await read(4) == bytes(4)
    await write(b"\1")  # shared
    width, height = struct.unpack(">HH", await read(4))
    bits = (await read(16))[0]
    name = (await read(struct.unpack(">I", await read(4))[0])).decode()
    await write(struct.pack(">BxHi", 2, 1, 0))  # raw pixels
    await write(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
    kind, rectangles = struct.unpack(">BxH", await read(4))
    assert kind == 0
    pixels = 0
    for _ in range(rectangles):
        _, _, w, h, encoding = struct.unpack(">HHHHi", await read(12))
        assert encoding == 0
        pixels += len(await read(w * h * bits // 8))
    assert 0 < pixels <= width * height * bits // 8, "a guest that starts may have made its screen smaller meanwhile"
    return name, pixels


async def test_a_picture_through_the_gateway(guest: Guest) -> None:
    async with guest.connect("vnc") as socket:
        assert socket.subprotocol == "binary", "as noVNC expects"
        name, size = await look(reader(socket.recv), socket.send)  # type: ignore[arg-type]
        assert guest.vm in name
        assert size > 512 * 1024, "more than a window: it was held back, and went on"
        async with guest.connect("vnc") as second, guest.connect("console"):
            await look(reader(second.recv), second.send)  # type: ignore[arg-type]
            await socket.send(struct.pack(">BBHHHH", 3, 0, 0, 0, 8, 8))


async def test_what_is_refused(guest: Guest) -> None:
    assert (await refused(guest.connect("vnc", "?force=true")))[:2] == (400, "invalid_parameter")
    plain = await guest.api.http.get(f"{VMS}/{guest.vm}/vnc")
    assert (plain.status_code, plain.json()["code"]) == (426, "upgrade_required")


async def test_the_command_tunnels(guest: Guest) -> None:
    env = {**os.environ, "NEBULA_URL": guest.api.url}
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "cli.main", "vm", "vnc", guest.vm]
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=pipe, stderr=pipe)
    assert process.stdout
    host, port = (await process.stdout.readline()).decode().strip().split(":")
    assert host == "127.0.0.1"

    async def view() -> str:
        incoming, outgoing = await asyncio.open_connection(host, int(port))

        async def write(data: bytes) -> None:
            outgoing.write(data)
            await outgoing.drain()

        name, _ = await look(reader(lambda: incoming.read(65536)), write)
        outgoing.close()
        return name

    names = await asyncio.gather(view(), view())
    assert all(guest.vm in name for name in names)
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130


async def test_it_ends_with_the_guest(guest: Guest) -> None:
    """The last: the guest is off afterwards."""
    async with guest.connect("vnc") as socket:
        await look(reader(socket.recv), socket.send)  # type: ignore[arg-type]
        await guest.hypervisor.destroy(guest.vm)
        code, reason = await ended(socket)
        assert (code, "off" in reason) == (1000, True)
    assert (await refused(guest.connect("vnc")))[:2] == (409, "no_display")
