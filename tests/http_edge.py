"""A listener as a client on a raw socket sees it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from runtime import listener
from runtime.http.limits import Limits

QUICK = Limits(
    head_seconds=0.3,
    body_seconds=0.3,
    idle_seconds=0.3,
    half_closed_seconds=0.3,
    connections=64,
    connections_per_address=8,
)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Served:
    host: str
    port: int

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)

    async def raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """All that the server says until it closes the connection."""
        reader, writer = await self.open()
        try:
            writer.write(data)
            with contextlib.suppress(ConnectionResetError):
                await writer.drain()
                if half_close:
                    writer.write_eof()
            return await asyncio.wait_for(everything(reader), 30)
        finally:
            writer.close()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the end, or a reset, which does not take back what came before it."""
    said = b""
    try:
        while piece := await reader.read(65536):
            said += piece
    except ConnectionResetError:
        said += bytes(reader._buffer)  # type: ignore[attr-defined]  # it is kept, but not handed out any more
    return said


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer:
    lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
    length = 0 if head else int(headers.get("content-length", "0"))
    return Answer(int(lines[0].split()[1]), headers, await reader.readexactly(length))


def answers(raw: bytes) -> list[int]:
    """The statuses of all answers in what a server said."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", raw)]


@asynccontextmanager
async def serving(app: ASGIApp, limits: Limits | None = None, **more: Any) -> AsyncIterator[Served]:
    sock = listener.bind("127.0.0.1", 0)
    host, port = sock.getsockname()[:2]
    stop = asyncio.Event()
    task = asyncio.create_task(listener.serve(app, sock, stop, limits, **more))
    try:
        yield Served(host, port)
    finally:
        stop.set()
        await task


HOST = b"Host: localhost\r\n"
