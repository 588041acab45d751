"""WebSockets on raw sockets: what a handshake has to be, and clients that read nothing or never end."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.types import Receive, Scope, Send

from runtime.http import websocket
from tests.http_edge import Served, answers, serving

HEAD = b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"
KEY = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
GET = b"GET / HTTP/1.1\r\n"
WHOLE = GET + HEAD + VERSION + KEY + b"\r\n"
NEXT = b"GET / HTTP/1.0\r\n\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket that answers each message with its length; of HTTP, 426, and `/slow` a moment later."""
    if scope["type"] == "http":
        if scope["path"] == "/slow":
            await asyncio.sleep(0.2)
        await send({"type": "http.response.start", "status": 426, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        data = message.get("bytes") or (message.get("text") or "").encode()
        await send({"type": "websocket.send", "bytes": b"%d" % len(data)})


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving(echo, websockets=True) as there:
        yield there


def frame(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as a client sends it, masked with zeros."""
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([(0x80 if fin else 0) | opcode]) + length + bytes(4) + data


async def upgraded(served: Served, more: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await served.open()
    writer.write(WHOLE + more)
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).startswith(b"HTTP/1.1 101 ")
    return reader, writer


@pytest.mark.parametrize(
    "head",
    [
        GET + HEAD + KEY,
        GET + HEAD + VERSION,
        GET + HEAD + VERSION.replace(b"13", b"8") + KEY,
        GET + HEAD + VERSION + b"Sec-WebSocket-Key: AAA\r\n",
        GET + HEAD + VERSION + b"Sec-WebSocket-Key: \xff\r\n",
        GET + HEAD + VERSION + KEY + KEY,
        GET + HEAD + VERSION + KEY + b"A: " + b"a" * 9000 + b"\r\n",
        b"GET /?" + b"a" * 8100 + b" HTTP/1.1\r\n" + HEAD + VERSION + KEY,
        GET + b"Host: a\r\nUpgrade: websocket\r\n" + VERSION + KEY,
    ],
)
async def test_what_is_no_whole_handshake_is_a_request_as_any(served: Served, head: bytes) -> None:
    assert answers(await served.raw(head + b"\r\n" + NEXT)) == [426, 426]


async def test_a_handshake_that_cannot_be_read_is_refused(served: Served) -> None:
    assert answers(await served.raw(GET + HEAD + VERSION + KEY + b"Content-Length: 00\r\n\r\n")) == [400]


async def test_a_client_that_has_closed_its_sending_side_opens_none(served: Served) -> None:
    before = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
    assert answers(await served.raw(before + WHOLE, half_close=True)) == [426, 426]


async def test_a_handshake_behind_much_that_waits_is_served(served: Served) -> None:
    one = GET + b"Host: a\r\nA: " + b"a" * 10_000 + b"\r\n\r\n"
    reader, writer = await served.open()
    writer.write(one * 20 + WHOLE + frame(2, b"hello"))
    said = await asyncio.wait_for(reader.readuntil(b"\x82\x015"), 30)
    assert said.count(b" 426 ") == 20
    writer.write(frame(2, b"a" * 1000))
    assert await asyncio.wait_for(reader.readexactly(6), 30) == b"\x82\x041000"
    writer.close()


async def test_a_message_may_come_in_many_fragments_and_empty_ones_count_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    real = websocket.WebSockets.handle_cont

    def counted(self: websocket.WebSockets, event: object) -> None:
        real(self, event)  # type: ignore[arg-type]
        kept.append(len(self.frames))

    monkeypatch.setattr(websocket.WebSockets, "handle_cont", counted)
    reader, writer = await upgraded(served)
    writer.write(frame(2, b"a", fin=False) + frame(0, fin=False) * 5000 + frame(0, b"b", fin=False) * 5000 + frame(0))
    assert await asyncio.wait_for(reader.readexactly(6), 30) == b"\x82\x045001"
    assert len(kept) == 10_001 and max(kept) <= websocket.MOST_FRAGMENTS
    writer.close()


async def test_pongs_that_nobody_reads_are_not_kept(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    sockets: list[websocket.WebSockets] = []
    real = websocket.WebSockets.connection_made

    def noted(self: websocket.WebSockets, transport: asyncio.BaseTransport) -> None:
        sockets.append(self)
        real(self, transport)

    monkeypatch.setattr(websocket.WebSockets, "connection_made", noted)
    _, writer = await upgraded(served)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    pings = frame(9, b"p" * 125) * 1000
    for _ in range(200):  # 26 MB
        writer.write(pings)
        await writer.drain()
    assert sockets[0].transport.get_write_buffer_size() < 2_000_000
    writer.transport.abort()


async def test_a_client_that_reads_nothing_is_left_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    left = asyncio.Event()

    async def much(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await send({"type": "websocket.send", "bytes": b"a" * 50_000_000})
            await send({"type": "websocket.close"})
            await send({"type": "websocket.send", "bytes": b"more"})
        finally:
            left.set()

    monkeypatch.setattr(websocket, "LINGER", 0.1)
    async with serving(much, websockets=True) as there:
        _, writer = await upgraded(there)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(frame(8))
        await asyncio.wait_for(left.wait(), 60)
        writer.transport.abort()
