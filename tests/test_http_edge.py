"""HTTP/1.1 framing on raw sockets: one table of cases against both listeners."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway import hub
from gateway.events import feed as feed_
from runtime import subjects
from runtime.local.servers import Postgres
from tests.gateway.platform import SPEC, VMS, Platform, platform
from tests.http_edge import HOST, Served, answers, everything, read_answer, serving
from tests.projections.cloud import projected
from tests.projections.guests import answering, guest_data
from tests.waiting import eventually


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
        answering(cloud, pool),
        serving(guest_data(cloud.nc)) as served,
    ):
        yield served


@pytest.fixture(params=["gateway", "source"])
def both(request: pytest.FixtureRequest) -> Served:
    served: Served = request.getfixturevalue(request.param)
    return served


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


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 9\r\n\r\n{}",
        b"Transfer-Encoding: chunked\r\n\r\n9\r\n{}",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nno size\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nffffffff\r\n",
    ],
    ids=["ends too early", "chunk ends too early", "broken chunks", "too large"],
)
async def test_a_request_has_one_answer_whatever_follows_of_its_body(both: Served, rest: bytes) -> None:
    """It was answered before its body was here: what is wrong with the rest of that ends the connection, unsaid."""
    head, separator, body = (POST + rest).partition(b"\r\n\r\n")
    reader, writer = await both.open()
    writer.write(head + separator)
    assert (await read_answer(reader)).status == 404
    writer.write(body)
    writer.write_eof()
    assert await asyncio.wait_for(everything(reader), 30) == b""
    writer.close()


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
async def test_a_feed_that_was_left_has_no_consumer(
    api: Platform, gateway: Served, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "LINGER", 0.1)  # the reader that all feeds have in common waits for the next feed so long
    if case.startswith("half"):  # that its client has closed shows when the next comment is sent
        monkeypatch.setattr(feed_, "HEARTBEAT", 0.5)
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
