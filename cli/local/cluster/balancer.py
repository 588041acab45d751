"""A balancer for the HTTP API on loopback: it passes each connection on to a gateway that answers."""

import asyncio
import contextlib
from collections.abc import Sequence

#: Seconds to connect to a gateway.
CONNECT = 1.0
_PIECE = 64 * 1024


class Balancer:
    """Serves `port` on loopback. `backends`: address and port of each gateway, which are used in turn."""

    def __init__(self, backends: Sequence[tuple[str, int]]) -> None:
        self._backends = list(backends)
        self._next = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, port: int) -> int:
        """Serve from now on. Returns the port, which is a free one for 0. Raises OSError."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", port)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found = await self._connected()
        if found is None:
            writer.transport.abort()
            return
        there, to = found
        self._open |= {writer, to}
        try:
            await asyncio.gather(_copy(reader, to), _copy(there, writer))
        finally:
            self._open -= {writer, to}
            for each in (writer, to):
                each.transport.abort()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the next gateway that accepts one."""
        for _ in self._backends:
            self._next = (self._next + 1) % len(self._backends)
            address, port = self._backends[self._next]
            with contextlib.suppress(OSError, TimeoutError):
                return await asyncio.wait_for(asyncio.open_connection(address, port), CONNECT)
        return None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one of the two ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
