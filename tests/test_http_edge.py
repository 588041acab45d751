"""HTTP/1.1 framing and limits on raw sockets: one table of cases against both listeners."""

import asyncio
import contextlib
import json
import re
import socket
import struct
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from projections.cloud_init import Source
from runtime import listener, subjects
from runtime.http.limits import Limits
from runtime.servers import Postgres
from tests.gateway.platform import SPEC, VMS, Platform, platform
from tests.projections.cloud import projected
from tests.waiting import eventually

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


@pytest.fixture(scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[Platform]:
    async with platform(tmp_path_factory.mktemp("edge"), postgres) as made:
        yield made


@pytest.fixture(scope="module")
async def gateway(api: Platform) -> Served:
    return Served("127.0.0.1", int(api.url.rsplit(":", 1)[1]))


@pytest.fixture(scope="module")
async def source(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[Served]:
    home: Path = tmp_path_factory.mktemp("seeds")
    async with (
        projected(home, postgres) as (cloud, pool),
        serving(Source(cloud.nc, pool, cloud.vault, cloud.position)) as served,
    ):
        yield served


@pytest.fixture(params=["gateway", "source"])
def both(request: pytest.FixtureRequest) -> Served:
    served: Served = request.getfixturevalue(request.param)
    return served


HOST = b"Host: localhost\r\n"
POST = b"POST /nowhere HTTP/1.1\r\n" + HOST
#: name, what is sent, the statuses of all answers until the server closes the connection
CASES: list[tuple[str, bytes, list[int]]] = [
    ("nonsense", b"hello\r\n\r\n", [400]),
    ("HTTP/0.9", b"GET /\r\n\r\n", [400]),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505]),
    ("HTTP/1.0 closes", b"GET /nowhere HTTP/1.0\r\n\r\n", [404]),
    ("HTTP/1.0 with keep-alive closes", b"GET /nowhere HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [404]),
    ("no Host", b"GET /nowhere HTTP/1.1\r\n\r\n", [400]),
    ("two Hosts", b"GET /nowhere HTTP/1.1\r\n" + HOST + HOST + b"\r\n", [400]),
    ("bad Host", b"GET /nowhere HTTP/1.1\r\nHost: a b/c\r\n\r\n", [400]),
    ("bare LF", b"GET /nowhere HTTP/1.1\nHost: localhost\n\n", [400]),
    ("bare LF in a header", b"GET /nowhere HTTP/1.1\r\nA: b\n" + HOST + b"\r\n", [400]),
    ("bare CR", b"GET /nowhere HTTP/1.1\r\nA: b\rc\r\n" + HOST + b"\r\n", [400]),
    ("obs-fold", b"GET /nowhere HTTP/1.1\r\nA: b\r\n c\r\n" + HOST + b"\r\n", [400]),
    ("space before the colon", b"GET /nowhere HTTP/1.1\r\nA : b\r\n" + HOST + b"\r\n", [400]),
    ("NUL in a header", b"GET /nowhere HTTP/1.1\r\nA: \0\r\n" + HOST + b"\r\n", [400]),
    ("header without a name", b"GET /nowhere HTTP/1.1\r\n: b\r\n" + HOST + b"\r\n", [400]),
    ("invalid method", b"GE(T /nowhere HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    ("endless method", b"A" * 100 + b" /nowhere HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    ("two spaces", b"GET  /nowhere HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    ("authority form", b"CONNECT example.org:443 HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    ("authority form of GET", b"GET example.org:443 HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    ("absolute form", b"GET http://localhost/nowhere HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n", [404]),
    ("absolute form of another scheme", b"GET ftp://localhost/ HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    ("fragment", b"GET /#a HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    ("not ASCII", "GET /\u00e9 HTTP/1.1\r\n".encode() + HOST + b"\r\n", [400]),
    ("bad percent", b"GET /%zz HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    ("bad percent at the end", b"GET /a?b=% HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    ("not UTF-8", b"GET /%ff HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
    ("NUL", b"GET /%00 HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n", [404]),
    ("double slash", b"GET //healthz HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n", [404]),
    ("dots", b"GET /v1/../healthz HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n", [404]),
    ("long target", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", [414]),
    ("large headers", b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 17_000 + b"\r\n\r\n", [431]),
    ("endless header", b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 100_000, [431]),
    ("many headers", b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 200 + b"\r\n", [431]),
    ("two lengths", POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", [400]),
    ("a list of lengths", POST + b"Content-Length: 1, 1\r\n\r\na", [400]),
    ("length with a sign", POST + b"Content-Length: +1\r\n\r\na", [400]),
    ("negative length", POST + b"Content-Length: -1\r\n\r\n", [400]),
    ("length in hex", POST + b"Content-Length: 0x1\r\n\r\na", [400]),
    ("length and chunks", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
    ("chunks twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
    ("chunks and more", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", [501]),
    ("hidden coding", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", [501]),
    ("chunks of HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
    ("announced too large", POST + b"Content-Length: 99999999999\r\n\r\n", [413]),
    ("HTTP/1.0 of no length", b"POST /nowhere HTTP/1.0\r\n\r\n{}", [411]),
    ("HTTP/1.0 of length 0", b"POST /nowhere HTTP/1.0\r\nContent-Length: 0\r\n\r\n", [404]),
    ("two tokens", b"GET / HTTP/1.1\r\n" + HOST + b"Authorization: a\r\nAuthorization: b\r\n\r\n", [400]),
    ("two origins", b"GET / HTTP/1.1\r\n" + HOST + b"Origin: http://localhost\r\norigin: http://a\r\n\r\n", [400]),
    ("escaped slash", b"GET /v1%2Ftags HTTP/1.0\r\n\r\n", [404]),
    ("escaped slash in an id", b"GET /v1/projects/a%2fb HTTP/1.0\r\n\r\n", [404]),
    ("unknown expectation", POST + b"Expect: tea\r\nContent-Length: 1\r\n\r\na", [417]),
    (
        "pipelined",
        b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n" + POST + b"Content-Length: 2\r\n\r\n{}"
        b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n",
        [404, 404, 404],
    ),
    (
        "smuggled in a body",
        POST + b"Connection: close\r\nContent-Length: 32\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"[:-4],
        [404],
    ),
    (
        "chunks with extensions and trailers",
        POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nA: b\r\n\r\n",
        [404],
    ),
    ("empty lines first", b"\r\n\r\nGET /nowhere HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n", [404]),
]


@pytest.mark.parametrize(("sent", "statuses"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_framing(both: Served, sent: bytes, statuses: list[int]) -> None:
    said = await both.raw(sent)
    assert answers(said) == statuses, said
    if statuses[0] in (400, 411, 413, 414, 431, 501, 505):
        document = json.loads(said.partition(b"\r\n\r\n")[2])
        assert (document["status"], bool(document["code"])) == (statuses[0], True)


@pytest.mark.parametrize("case", ["plain", "pipelined", "no keep-alive"])
async def test_a_client_that_half_closes_gets_its_answers(both: Served, case: str) -> None:
    one = b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n"
    sent = {"plain": one, "pipelined": one * 3, "no keep-alive": b"GET /nowhere HTTP/1.0\r\n\r\n"}[case]
    assert answers(await both.raw(sent, half_close=True)) == [404] * (3 if case == "pipelined" else 1)


@pytest.mark.parametrize("sent", [b"GET / HT", POST, POST + b"Content-Length: 9\r\n"])
async def test_a_request_that_ends_too_early_is_refused(both: Served, sent: bytes) -> None:
    assert answers(await both.raw(sent, half_close=True)) == [400]


@pytest.mark.parametrize("framing", [b"Content-Length: 9\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n9\r\n{}"])
async def test_a_body_that_ends_too_early_is_refused(gateway: Served, framing: bytes) -> None:
    sent = b"POST /v1/tags HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n" + framing
    assert answers(await gateway.raw(sent, half_close=True)) == [400]


@pytest.mark.parametrize("offer", ["h2c", "websocket", "TLS/1.0", "h2c, websocket"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beside_an_offered_upgrade_is_read(gateway: Served, offer: str, chunked: bool) -> None:
    name = f"upgrade-{uuid.uuid4().hex[:8]}"
    body = json.dumps({"name": name, "image": "base", **SPEC}).encode()
    framing = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    sent = (
        f"POST {VMS} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
        f"Upgrade: {offer}\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {name}\r\n"
    ).encode() + framing
    said = await gateway.raw(sent)
    while answers(said) == [503]:  # handlers are too busy to answer in time: the same again is one VM
        said = await gateway.raw(sent)
    assert answers(said) == [202], said
    assert json.loads(said.partition(b"\r\n\r\n")[2])["vm"]["name"] == name


@pytest.mark.parametrize("offer", ["h2c", "websocket"])
async def test_an_offered_upgrade_without_a_body_is_ignored(both: Served, offer: str) -> None:
    said = await both.raw(
        f"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {offer}\r\n\r\n"
        "GET /nowhere HTTP/1.0\r\n\r\n".encode()
    )
    assert answers(said) == [404, 404]


async def test_an_unread_body_does_not_end_up_in_the_next_request(both: Served) -> None:
    reader, writer = await both.open()
    for _ in range(3):
        writer.write(POST + b"Content-Length: 20\r\n\r\n")
        assert (await read_answer(reader)).status == 404
        writer.write(b"GET / HTTP/1.1\r\n\r\n\r\n")
    writer.close()


async def test_the_client_is_asked_for_a_body_that_is_wanted(gateway: Served) -> None:
    reader, writer = await gateway.open()
    body = json.dumps({"name": "expected", "image": "base", **SPEC}).encode()
    head = f"POST {VMS} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await read_answer(reader)).status == 202
    writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["connection"]) == (404, "close")
    writer.close()


# ── feeds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def consumers(api: Platform) -> int:
    return (await api.side.nc.jetstream().stream_info(subjects.EVENTS)).state.consumer_count


@pytest.mark.parametrize("case", ["HEAD", "HEAD, kept", "one", "pipelined", "HTTP/1.0", "half-closed, then closed"])
async def test_a_feed_that_was_left_has_no_consumer(api: Platform, gateway: Served, case: str) -> None:
    before = await consumers(api)
    feed = b"GET /v1/feed?from=now HTTP/1.1\r\n" + HOST + b"\r\n"
    sent = {"pipelined": feed * 5, "HTTP/1.0": b"GET /v1/feed HTTP/1.0\r\n\r\n"}.get(case, feed)
    if case.startswith("HEAD"):
        sent = b"HEAD" + feed[3:]
    reader, writer = await gateway.open()
    writer.write(sent)
    if case.startswith("half"):
        writer.write_eof()
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    if case == "HEAD, kept":
        writer.write(POST + b"\r\n")
        assert (await read_answer(reader)).status == 404
    elif not case.startswith("HEAD"):

        async def followed() -> bool:
            return await consumers(api) == before + 1

        await eventually(followed, "one consumer, however many feeds are pipelined")
    writer.close()

    async def left() -> bool:
        return await consumers(api) <= before

    await eventually(left, "no consumer is left", seconds=60)


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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
