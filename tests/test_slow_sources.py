"""Sources of images that never come to an end, each in its own way: none is waited for without a limit."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from runtime.images import download as downloads
from runtime.images.download import Encoded, Interrupted, Pace, Part, download
from runtime.images.image_client import CheckedBackend
from runtime.images.image_hosts import Address, Denied, ImageHosts
from tests.image_server import LOOPBACK

Answer = Callable[[asyncio.StreamWriter, str], Awaitable[None]]
BODY = b"x" * 4096
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n" + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def source(answer: Answer) -> AsyncIterator[str]:
    """The URL of a server that answers `/image` like that, and any other path with the file."""
    answering: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /image"):
                await answer(writer, url)
            else:
                writer.write(WHOLE)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has had enough
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield url
    finally:
        server.close()
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)


async def for_ever(writer: asyncio.StreamWriter, piece: bytes, pause: float = 0.01) -> None:
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause)


async def trickled_head(writer: asyncio.StreamWriter, url: str) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    await for_ever(writer, b"y")


async def interim_answers(writer: asyncio.StreamWriter, url: str) -> None:
    await for_ever(writer, b"HTTP/1.1 103 Early Hints\r\n\r\n")


async def slow_redirects(writer: asyncio.StreamWriter, url: str) -> None:
    await asyncio.sleep(0.2)
    writer.write(f"HTTP/1.1 302 Found\r\nLocation: {url}/image\r\nContent-Length: 0\r\n\r\n".encode())


async def chunk_that_never_begins(writer: asyncio.StreamWriter, url: str) -> None:
    writer.write(CHUNKED + b"1;")
    await for_ever(writer, b"z")


async def one_byte_at_a_time(writer: asyncio.StreamWriter, url: str) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n")
    await for_ever(writer, b"x", 0.05)


async def less_than_it_says(writer: asyncio.StreamWriter, url: str) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\nxx")
    await writer.drain()
    await asyncio.sleep(3600)


async def trickled_tail(writer: asyncio.StreamWriter, url: str) -> None:
    writer.write(CHUNKED + b"1\r\nx\r\n0\r\n")
    await for_ever(writer, b"T")


def unheard(*_: object) -> None:
    """Nobody wants to know."""


async def fetch(url: str, part: Part) -> bool:
    pace = Pace(least=1000, window=0.5, whole=3600)
    return await download(
        url, part, hosts=LOOPBACK, tell=unheard, check=unheard, most=10**6, connect=0.3, silence=0.3, pace=pace
    )


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (trickled_head, "begin to send"),
        (interim_answers, "begin to send"),
        (slow_redirects, "begin to send|redirects"),
        (chunk_that_never_begins, "nothing of the file"),
        (one_byte_at_a_time, "1000 bytes per second"),
        (less_than_it_says, "nothing of the file|ReadTimeout"),
        (trickled_tail, "nothing of the file"),
    ],
)
async def test_it_is_given_up(answer: Answer, why: str, tmp_path: Path) -> None:
    async with source(answer) as url, asyncio.timeout(60):
        with pytest.raises((Interrupted, downloads.NotFound), match=why):
            await fetch(f"{url}/image", Part(tmp_path / "i.part"))


async def endless_redirect(writer: asyncio.StreamWriter, url: str) -> None:
    writer.write(f"HTTP/1.1 302 Found\r\nLocation: {url}/file\r\n\r\n".encode())
    await for_ever(writer, b"x" * 65536, 0)


async def test_the_body_of_a_redirect_is_not_read(tmp_path: Path) -> None:
    part = Part(tmp_path / "i.part")
    async with source(endless_redirect) as url, asyncio.timeout(60):
        await fetch(f"{url}/image", part)
    assert part.path.read_bytes() == BODY


async def test_what_is_packed_on_the_way_is_not_taken(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))

    async def answer(writer: asyncio.StreamWriter, url: str) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
        writer.write(head.encode() + bomb)

    part = Part(tmp_path / "i.part")
    async with source(answer) as url:
        with pytest.raises(Encoded):
            await fetch(f"{url}/image", part)
    assert part.size == 0, "nothing of it is kept"


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "017700000001", "2130706433", "0"])
async def test_other_ways_to_write_this_host(host: str) -> None:
    """As the system reads them, without any name server."""
    with pytest.raises(Denied):
        await CheckedBackend(ImageHosts.of("*")).addresses(host, 80, 10)


@pytest.mark.parametrize("host", ["localhost.", "LOCALHOST", "store.lan", "127.0.0.1.nip.io"])
async def test_names_are_judged_by_what_they_lead_to(host: str) -> None:
    async def resolve(name: str, port: int) -> list[Address]:
        return [ip_address("127.0.0.1"), ip_address("::1")]

    with pytest.raises(Denied, match="this host itself"):
        await CheckedBackend(ImageHosts.of("*"), resolve).addresses(host, 80, 1)
