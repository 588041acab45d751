"""A connection over a real bus: whole, in order, bounded, and never silently broken."""

import asyncio
import contextlib
import os
import struct
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.msg import Msg

from runtime.bus import pipe as module
from runtime.bus.pipe import BYTES_LOST, NOT_ANSWERING, WINDOW, Ended, Pipe
from runtime.local.servers import NatsServer


@asynccontextmanager
async def pair(server: NatsServer, *keys: tuple[bytes, bytes]) -> AsyncIterator[tuple[Pipe, Pipe]]:
    one, other = await nats.connect(server.url), await nats.connect(server.url)
    here, there = f"test.{uuid.uuid4().hex}", f"test.{uuid.uuid4().hex}"
    ends = Pipe(one, here, there), Pipe(other, there, here)
    for each, own in zip(ends, keys, strict=False):
        each.seal(*own)
    for each in ends:
        await each.open()
    await one.flush()
    await other.flush()
    try:
        yield ends
    finally:
        for each in ends:
            await each.close("over")
        await one.close()
        await other.close()


async def test_all_of_it_in_order_both_ways(nats_server: NatsServer) -> None:
    said = os.urandom(3_000_000)

    async def read(end: Pipe) -> bytes:
        data = b""
        while len(data) < len(said):
            data += await end.receive()
        return data

    async with pair(nats_server) as (one, other), asyncio.timeout(60):
        first, second, *_ = await asyncio.gather(read(one), read(other), one.send(said), other.send(said))
    assert first == second == said


async def test_a_slow_reader_holds_the_writer_back(nats_server: NatsServer) -> None:
    async with pair(nats_server) as (one, other):
        sending = asyncio.create_task(one.send(bytes(4 * WINDOW)))
        await asyncio.wait({sending}, timeout=1)
        assert not sending.done()
        assert len(other._waiting) == WINDOW, "and no more"
        taken = 0
        while taken < 4 * WINDOW:
            taken += len(await other.receive())
        await sending


async def test_the_other_end_is_told_why(nats_server: NatsServer) -> None:
    async with pair(nats_server) as (one, other):
        await one.send(b"last words")
        await one.close("that was all")
        assert await other.receive() == b"last words"
        with pytest.raises(Ended, match="that was all"):
            await other.receive()
        for end in (one, other):
            with pytest.raises(Ended, match="that was all"):
                await end.send(b"more")


async def test_an_end_that_vanishes_is_noticed(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "SILENCE", 0.5)
    async with pair(nats_server) as (one, other):
        await asyncio.sleep(0.8)
        assert one.ended is None, "signs of life are enough"
        assert other._beating is not None
        other._beating.cancel()
        with pytest.raises(Ended, match=NOT_ANSWERING):
            await one.receive()


async def test_what_was_lost_is_never_papered_over(nats_server: NatsServer) -> None:
    async with pair(nats_server) as (one, other):
        one._sent += 3  # as if a message with three bytes had not arrived
        await one.send(b"and on")
        for end in (one, other):
            with pytest.raises(Ended, match=BYTES_LOST):
                await end.receive()
        with contextlib.suppress(Ended):
            await one.send(b"more")


async def test_nobody_else_writes_into_a_sealed_one(nats_server: NatsServer) -> None:
    """On a bus on which a third party hears all, and may publish on both subjects."""
    keys = os.urandom(32), os.urandom(32)
    stranger, heard = await nats.connect(nats_server.url), list[tuple[str, bytes]]()

    async def note(msg: Msg) -> None:
        heard.append((msg.subject, msg.data))

    async with pair(nats_server, keys, keys[::-1]) as (one, other), asyncio.timeout(60):
        await stranger.subscribe("test.>", cb=note)
        await stranger.flush()
        await one.send(b"first")
        assert await other.receive() == b"first"
        head = struct.Struct(">cQ").pack
        for subject in (one._here, other._here):
            for forged in (head(b"D", 5) + b"forged", head(b"E", 0) + b"over", head(b"T", 99), b"", b"\0" * 64):
                await stranger.publish(subject, forged)
        await stranger.flush()
        for subject, data in list(heard):
            await stranger.publish(subject, data)
        await stranger.flush()
        await one.send(b"second")
        assert await other.receive() == b"second"
        await other.send(b"back")
        assert await one.receive() == b"back"
        assert one.ended is None and other.ended is None
        assert not any(word in data for _, data in heard for word in (b"first", b"second", b"back"))
        await one.close("over")
        with pytest.raises(Ended, match="over"):
            await other.receive()
    await stranger.close()
