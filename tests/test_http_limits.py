"""What a listener bears of one client: limits of time, of connections and of sizes, on raw sockets."""

import asyncio
import re
import socket
import struct
from dataclasses import replace

import pytest
from starlette.types import Receive, Scope, Send

from runtime.http.census import network
from runtime.http.limits import Limits
from tests.http_edge import QUICK, answers, serving
from tests.waiting import eventually


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the number of bytes of the body; `/stay` never answers."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message["more_body"]:
            break
    if scope["path"] == "/stay":
        await receive()
        return
    text = b"%d" % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", []),
        (b"GET / HTTP/1.1\r\nHost", [408]),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na", [408]),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", [408]),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [200]),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", [200, 408]),
    ],
)
async def test_slow_and_idle_connections_end(sent: bytes, statuses: list[int]) -> None:
    async with serving(hello, QUICK) as served:
        assert answers(await served.raw(sent)) == statuses


@pytest.mark.parametrize("limits", [QUICK, replace(QUICK, connections=8, connections_per_address=64)])
async def test_too_many_connections_are_refused_in_words(limits: Limits) -> None:
    async with serving(hello, limits) as served:
        opened = [await served.open() for _ in range(8)]
        for _, writer in opened:
            writer.write(b"GET /stay HTTP/1.1\r\nHost: a\r\n\r\n")

        async def refused() -> bool:
            return answers(await served.raw(b"GET / HTTP/1.0\r\n\r\n")) == [503]

        await eventually(refused, "the ninth is refused")
        for _, writer in opened:
            writer.close()

        async def room() -> bool:
            return answers(await served.raw(b"GET / HTTP/1.0\r\n\r\n")) == [200]

        await eventually(room, "there is room again")


async def test_what_only_reads_ends_with_its_reader() -> None:
    begun, ended = asyncio.Event(), asyncio.Queue[str]()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        try:
            await asyncio.sleep(0.5 if scope["method"] == "POST" else 600)
            ended.put_nowait("done")
        except asyncio.CancelledError:
            ended.put_nowait("cancelled")
            raise

    async with serving(waits) as served:
        for method, how in ((b"GET", "cancelled"), (b"HEAD", "cancelled"), (b"POST", "done")):
            _, writer = await served.open()
            writer.write(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.wait_for(begun.wait(), 30)
            sock = writer.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            assert await asyncio.wait_for(ended.get(), 30) == how
            begun.clear()


async def test_who_takes_no_answers_is_left() -> None:
    """Pipelined requests, of which no answer is read: they would be held for ever."""
    asked, left = [0], asyncio.Event()

    async def much(scope: Scope, receive: Receive, send: Send) -> None:
        asked[0] += 1
        try:
            size = 20_000_000
            head = [(b"content-length", b"%d" % size)]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": b"a" * size})
        except asyncio.CancelledError:
            left.set()
            raise

    async with serving(much, QUICK) as served:
        _, writer = await served.open()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        await asyncio.wait_for(left.wait(), 30)
        assert asked == [2], "the third was never begun"
        writer.transport.abort()


def test_what_counts_as_one_address() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff:2%eth0") != network("2001:db8:0:1::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") != network("::ffff:192.0.2.2")


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("chunks", "status"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", 200),
        (b"5 ;a=b\r\nhello\r\n000\r\nX: y\r\n\r\n", 200),
        (b"5\r\nhello!\r\n0\r\n\r\n", 400),
        (b"5\nhello\n0\n\n", 400),
        (b"-5\r\nhello\r\n0\r\n\r\n", 400),
        (b"0x5\r\nhello\r\n0\r\n\r\n", 400),
        (b"5;" + b"a" * 1000 + b"\r\nhello\r\n0\r\n\r\n", 400),
        (b"5;" + b"a" * 1000, 400),
        (b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n", 400),
        (b"0\r\nA b\r\n\r\n", 400),
        (b"fffffffff\r\n", 400),
        (b"ffffffff\r\n", 413),
        (b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n", 413),
        (b"10000\r\n" + b"a" * 65536 + b"\r\n", 400),
    ],
)
async def test_chunks(chunks: bytes, status: int) -> None:
    async with serving(hello) as served:
        half_close = chunks.endswith(b"a\r\n") and status == 400
        said = await served.raw(CHUNKED + chunks, half_close=half_close)
        assert answers(said) == [status]
        if status == 200:
            assert said.endswith(b"5")


async def test_a_request_may_come_byte_by_byte() -> None:
    sent = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nA: b\r\n\r\n"
    sent += b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd"
    async with serving(hello) as served:
        reader, writer = await served.open()
        writer.transport.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
        for at in range(len(sent)):
            writer.write(sent[at : at + 1])
            await asyncio.sleep(0)
        said = await asyncio.wait_for(reader.read(), 30)
        writer.close()
    assert (answers(said), re.findall(rb"\r\n\r\n(\d)", said)) == ([200, 200], [b"3", b"4"])


async def test_large_bodies_arrive_whole() -> None:
    body = b"x" * (1024 * 1024)
    async with serving(hello) as served:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert (await served.raw(head + body)).endswith(b"\r\n\r\n%d" % len(body))


async def test_an_application_that_fails_is_a_500_and_the_others_go_on() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("no")

    async with serving(broken) as served:
        assert answers(await served.raw(b"GET / HTTP/1.0\r\n\r\n")) == [500]
        late = await served.raw(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not late.endswith(b"0\r\n\r\n"), "nobody may take it for whole"


async def test_a_request_that_is_cancelled_because_the_process_stops_may_be_repeated() -> None:
    async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    async with serving(cancelled) as served:
        said = await served.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answers(said) == [503]
    assert b"retry-after: 1" in said
    assert b'"code": "stopping"' in said
