"""A connection is lost when its server is silent, and not because the server, or this process, is busy."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlparse

import nats
import pytest

from runtime.bus import bus
from runtime.bus.bus import Connection
from runtime.local.servers import NatsServer, start_nats
from runtime.settings import Common
from tests.waiting import eventually

SUBJECT = "slow.test"


@pytest.fixture(autouse=True)
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "PING_SECONDS", 0.05)


@asynccontextmanager
async def connected(*urls: str) -> AsyncIterator[Connection]:
    connection = Connection(Common(nats_url=",".join(urls)), "test")
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def without_answers(url: str) -> AsyncIterator[tuple[str, list[int]]]:
    """A way to the server on which its answers to pings get lost, after the first one. Yields its URL and how many."""
    host, port = url.removeprefix("nats://").split(":")
    lost = [0]
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, answers: bool) -> None:
        first = True
        while data := await source.read(65536):
            if answers and b"PONG\r\n" in data and not first:
                lost[0] += data.count(b"PONG\r\n")
                data = data.replace(b"PONG\r\n", b"")
            first = first and b"PONG" not in data
            target.write(data)
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection(host, int(port))
        writers.extend((writer, there))
        await asyncio.gather(pass_on(reader, there, False), pass_on(back, writer, True), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", lost
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def test_any_bytes_show_that_the_server_lives(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer to a ping comes after all that it sent before."""
    monkeypatch.setattr(bus, "UNANSWERED_ALONE", 2)
    other = await nats.connect(nats_server.url)
    async with without_answers(nats_server.url) as (url, lost), connected(url) as connection:
        await connection.subscribe(SUBJECT)
        await other.flush()
        while lost[0] < 20:
            await other.publish(SUBJECT, b"")
            await asyncio.sleep(0.01)
        assert connection.stats["reconnects"] == 0
        await eventually(lambda: connection.stats["reconnects"] > 0, "it is silent now, and is left")
    await other.close()


async def test_a_single_server_may_stand_still_for_longer(nats_server: NatsServer, tmp_path: Path) -> None:
    """Longer than one of several, which is left for another one."""
    second = await start_nats(tmp_path)
    try:
        async with connected(nats_server.url, second.url) as one_of_two:
            used = nats_server if one_of_two.connected_url == urlparse(nats_server.url) else second
            async with connected(used.url) as alone:
                os.kill(used.pid, signal.SIGSTOP)
                try:
                    await eventually(lambda: one_of_two.stats["reconnects"] == 1, "the other server is used")
                    await eventually(lambda: alone._pings_outstanding > bus.UNANSWERED + 1, "it is waited for")
                finally:
                    os.kill(used.pid, signal.SIGCONT)
                await alone.flush(30)
                assert alone.stats["reconnects"] == 0
    finally:
        await second.stop()
