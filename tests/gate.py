"""A gate in front of a server: what is away behind it is away for who comes through it, and for nobody else."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Passes connections on to a port on loopback while it is open. Its own port stays its own, open or not."""

    def __init__(self, port: int) -> None:
        self._onward = port
        self._socket = _bound(0)
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._lets_through = True
        self.port: int = self._socket.getsockname()[1]
        #: connections that were broken off as they came
        self.broken = 0

    async def open(self) -> None:
        self._lets_through = True
        await self._listen()

    async def break_off(self) -> None:
        """Accept connections, and break them off: somebody listens, and serves nobody."""
        self._lets_through = False
        await self._cut()
        await self._listen()

    async def close(self) -> None:
        """Refuse connections, and cut those that there are, also one that was accepted and has not begun to pass."""
        self._lets_through = False
        if self._server is not None:
            self._server.close()
            self._server = None
            self._socket = _bound(self.port)
        await self._cut()

    def say(self, line: bytes) -> None:
        """Say something to all clients as if the server had."""
        for writer in self._writers:
            writer.write(line)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._pass, sock=self._socket)

    async def _cut(self) -> None:
        passing = list(self._passing)
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._lets_through:
            self.broken += 1
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        self._writers.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            onward, other = await asyncio.open_connection("127.0.0.1", self._onward)
            ways = [asyncio.ensure_future(_copy(reader, other)), asyncio.ensure_future(_copy(onward, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._passing.discard(task)
            self._writers.discard(writer)
            for end in (writer, other):
                if end is not None:
                    end.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()


def _bound(port: int) -> socket.socket:
    """A socket that does not listen: whoever connects is refused."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def gate(port: int) -> AsyncIterator[Gate]:
    """A closed one in front of that port."""
    found = Gate(port)
    try:
        yield found
    finally:
        await found.close()
        found._socket.close()
