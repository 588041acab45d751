"""The serial console and the display of a guest, as channels of bytes."""

import asyncio
import contextlib
import socket
from typing import Any

import libvirt

from node_daemon.hypervisor.connections import on_thread

#: At most so many bytes of a console wait for a slow reader. More are dropped; the console log has them.
MOST_WAITING = 256 * 1024
#: Input of a console: bytes per second (a little more than the 115,200 baud that guests expect), and bytes per call.
#: libvirt would accept more than a guest reads, and keep it in memory.
INPUT_RATE, INPUT_PIECE = 16 * 1024, 1024
#: `Console.close` waits at most so many seconds for libvirt to close the stream.
CLOSING = 2.0
READ = 64 * 1024

_READABLE = libvirt.VIR_STREAM_EVENT_READABLE
_CLOSED = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
WOULD_BLOCK = -2


class Console:
    """A serial console on a libvirt stream. Implements `hypervisor.Channel`.

    libvirt's event thread reads all the time, even if nobody calls `read`. Otherwise libvirt's client would buffer the
    output without a limit.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Any, stream: Any) -> None:
        """Blocks: call it on a thread. Raises libvirtError."""
        self._loop = loop
        self._connection = connection
        self._stream = stream
        self._waiting = bytearray()
        self._dropped = 0
        self._ended = False
        self._arrived = asyncio.Event()
        self._closing: asyncio.Future[None] | None = None
        stream.eventAddCallback(_READABLE | _CLOSED, self._on_event, None)

    async def read(self) -> bytes:
        while not self._waiting:
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._waiting)
        self._waiting.clear()
        if self._dropped:
            data += f"\r\n[{self._dropped} bytes dropped: the output is too fast]\r\n".encode()
            self._dropped = 0
        return data

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), INPUT_PIECE):
            piece = data[start : start + INPUT_PIECE]
            while not self._ended:
                try:
                    sent = await on_thread(self._stream.send, piece)
                except libvirt.libvirtError:
                    self._end()
                    return
                if sent > 0:
                    piece = piece[sent:]
                    await asyncio.sleep(sent / INPUT_RATE)
                if not piece:
                    break
                if sent == WOULD_BLOCK:
                    await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._closing is None:
            self._end()
            self._closing = on_thread(self.release)
        await asyncio.wait({self._closing}, timeout=CLOSING)

    @property
    def is_closing(self) -> bool:
        """It was closed, but libvirt has not ended the stream yet."""
        return self._closing is not None and not self._closing.done()

    def release(self) -> None:
        """End the stream and its connection. Blocks until the guest has read what was sent to it."""
        for call in (self._stream.eventRemoveCallback, self._stream.abort, self._connection.close):
            with contextlib.suppress(libvirt.libvirtError):
                call()

    def _on_event(self, stream: Any, events: int, _: object) -> None:
        """Called on libvirt's thread. An empty read, or an error, means that the other end has closed the stream."""
        data: bytes | int = b""
        if events & _READABLE:
            with contextlib.suppress(libvirt.libvirtError):
                data = stream.recv(READ)
        if isinstance(data, int):
            return  # the read would block: there is no data
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._on_data, data)
        if not data:
            with contextlib.suppress(libvirt.libvirtError):
                stream.eventRemoveCallback()

    def _on_data(self, data: bytes) -> None:
        if not data:
            self._end()
            return
        room = max(MOST_WAITING - len(self._waiting), 0)
        self._waiting += data[:room]
        self._dropped += len(data[room:])
        self._arrived.set()

    def _end(self) -> None:
        self._ended = True
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
        with contextlib.suppress(OSError):  # `read` returns b"" then
            self._writer.write(data)
            await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
