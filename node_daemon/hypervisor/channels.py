"""What a guest can be reached by: its serial console, and its display."""

import asyncio
import contextlib
import socket
from typing import Any

import libvirt

from node_daemon.hypervisor.connections import on_thread

#: Bytes of a console that wait for a slow reader. What comes beyond them is left out: the log of the console has it.
MOST_WAITING = 256 * 1024
#: Bytes a second that a console is fed (a little more than the 115,200 baud that guests expect), and how many at once.
#: libvirt would take them faster than any guest, and keep them in memory.
FEED, MOUTHFUL = 16 * 1024, 1024
#: Seconds that whoever closes a console waits for libvirt to let go of it.
CLOSING = 2.0
READ = 64 * 1024

_READABLE = libvirt.VIR_STREAM_EVENT_READABLE
_OVER = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
WOULD_BLOCK = -2


class Console:
    """A serial console, on a stream of libvirt. Implements `hypervisor.Channel`.

    libvirt's own thread reads, whether anybody takes it or not: it would pile up in libvirt's client otherwise, without
    limit.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Any, stream: Any) -> None:
        """Blocks: to be called on a thread. Raises libvirtError."""
        self._loop = loop
        self._connection = connection
        self._stream = stream
        self._waiting = bytearray()
        self._left_out = 0
        self._over = False
        self._arrived = asyncio.Event()
        self._closing: asyncio.Future[None] | None = None
        stream.eventAddCallback(_READABLE | _OVER, self._happened, None)

    async def read(self) -> bytes:
        while not self._waiting:
            if self._over:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._waiting)
        self._waiting.clear()
        if self._left_out:
            data += f"\r\n[{self._left_out} bytes left out: too fast]\r\n".encode()
            self._left_out = 0
        return data

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), MOUTHFUL):
            piece = data[start : start + MOUTHFUL]
            while not self._over:
                try:
                    sent = await on_thread(self._stream.send, piece)
                except libvirt.libvirtError:
                    self._ended()
                    return
                if sent > 0:
                    piece = piece[sent:]
                    await asyncio.sleep(sent / FEED)
                if not piece:
                    break
                if sent == WOULD_BLOCK:
                    await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._closing is None:
            self._ended()
            self._closing = on_thread(self.let_go)
        await asyncio.wait({self._closing}, timeout=CLOSING)

    @property
    def lingers(self) -> bool:
        """It was closed, but libvirt has not let go of it yet."""
        return self._closing is not None and not self._closing.done()

    def let_go(self) -> None:
        """End the stream and its connection. Blocks, until the guest has taken what was sent to it."""
        for call in (self._stream.eventRemoveCallback, self._stream.abort, self._connection.close):
            with contextlib.suppress(libvirt.libvirtError):
                call()

    def _happened(self, stream: Any, events: int, _: object) -> None:
        """Called on libvirt's thread. The other end is gone when there is nothing to read, or an error instead."""
        data: bytes | int = b""
        if events & _READABLE:
            with contextlib.suppress(libvirt.libvirtError):
                data = stream.recv(READ)
        if isinstance(data, int):
            return  # nothing after all
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._came, data)
        if not data:
            with contextlib.suppress(libvirt.libvirtError):
                stream.eventRemoveCallback()

    def _came(self, data: bytes) -> None:
        if not data:
            self._ended()
            return
        room = max(MOST_WAITING - len(self._waiting), 0)
        self._waiting += data[:room]
        self._left_out += len(data[room:])
        self._arrived.set()

    def _ended(self) -> None:
        self._over = True
        self._arrived.set()


class Display:
    """A connection to a VNC server. Implements `hypervisor.Channel`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, connected: socket.socket) -> "Display":
        connected.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=connected))

    async def read(self) -> bytes:
        try:
            return await self._reader.read(READ)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # whoever reads is told
            self._writer.write(data)
            await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
