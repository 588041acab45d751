"""A connection that has just broken, on the event loop of the roles: uvloop raises RuntimeError for a write to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from runtime.bus.bus import Connection
from runtime.bus.quick_client import QuickClient, publish_bytes
from runtime.local.servers import NatsServer
from runtime.settings import Common
from tests.waiting import eventually

SUBJECT = "broken.test"


class Ear(QuickClient):
    """Notes what arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bytes] = []

    async def note(self, msg: Msg) -> None:
        self.heard.append(msg.data)


@asynccontextmanager
async def both(url: str) -> AsyncIterator[tuple[QuickClient, Ear]]:
    """A client, and one that hears what it publishes."""
    nc, ear = QuickClient(), Ear()
    await nc.connect(url, reconnect_time_wait=0.05)  # type: ignore[arg-type]
    await ear.connect(url)
    await ear.subscribe(SUBJECT, cb=ear.note)
    await ear.flush()
    try:
        yield nc, ear
    finally:
        await nc.close()
        await ear.close()


async def broken(nc: Client) -> None:
    """Break the connection in a moment in which the client does not read, so that it finds out when it writes."""
    assert nc._reading_task is not None
    nc._reading_task.cancel()
    nc._reading_task = asyncio.create_task(asyncio.sleep(60))
    writer = nc._transport._io_writer  # type: ignore[union-attr]
    writer.transport.abort()
    await eventually(lambda: writes_fail(writer), "its handle is closed")
    assert nc.is_connected, "it does not know it yet"


def writes_fail(writer: asyncio.StreamWriter) -> bool:
    try:
        writer.write(b"PING\r\n")
    except RuntimeError:
        return True
    return False


def test_what_is_published_then_arrives_after_the_reconnect(nats_server: NatsServer) -> None:
    async def main() -> None:
        async with both(nats_server.url) as (nc, ear):
            await broken(nc)
            await nc.publish(SUBJECT, b"0")
            await nc.publish(SUBJECT, b"1", reply="inbox")
            for _ in range(3):  # turns in which nats-py's writing task fails
                await asyncio.sleep(0)
            await nc.publish(SUBJECT, b"2", headers={"a": "b"})
            await publish_bytes(nc, SUBJECT.encode(), "inbox", b"NATS/1.0\r\na: b\r\n\r\n", b"3")
            await nc.publish(SUBJECT, b"4")
            await eventually(lambda: len(ear.heard) >= 5, "all arrive")
            assert sorted(ear.heard) == [b"0", b"1", b"2", b"3", b"4"]
            await nc.flush()

    uvloop.run(main())


def test_a_question_waits_for_the_reconnect(nats_server: NatsServer) -> None:
    async def main() -> None:
        async with both(nats_server.url) as (nc, ear):

            async def answer(msg: Msg) -> None:
                await msg.respond(b"yes")

            await ear.subscribe("broken.question", cb=answer)
            await ear.flush()
            await nc.request("broken.question", b"", timeout=10)
            await broken(nc)
            assert (await nc.request("broken.question", b"", timeout=30)).data == b"yes"

    uvloop.run(main())


@pytest.mark.parametrize("waiting", [True, False])
def test_a_flush_says_that_the_connection_is_broken(nats_server: NatsServer, waiting: bool) -> None:
    async def main() -> None:
        async with both(nats_server.url) as (nc, ear):
            await broken(nc)
            if waiting:
                await nc.publish(SUBJECT, b"0")
            with pytest.raises(OSError, match="closed"):
                await nc.flush()
            await nc._send_ping()  # by nats-py's own task, which nobody watches
            await nc.publish(SUBJECT, b"1")
            await eventually(lambda: b"1" in ear.heard, "it connects again")

    uvloop.run(main())


class Unlucky(Connection):
    """Its first reconnect breaks as soon as the server has accepted it."""

    breaks = 0

    async def _process_connect_init(self) -> None:
        await super()._process_connect_init()
        if self.breaks:
            self.breaks -= 1
            await broken(self)


def test_a_reconnect_that_breaks_is_tried_again(nats_server: NatsServer) -> None:
    async def main() -> None:
        nc, ear = Unlucky(Common(nats_url=nats_server.url), "test"), Ear()
        await nc.open()
        await ear.connect(nats_server.url)
        await nc.subscribe(SUBJECT, cb=ear.note)
        await nc.flush()
        nc.breaks = 1
        nc._transport._io_writer.transport.abort()  # type: ignore[union-attr]
        await eventually(lambda: nc.breaks == 0 and nc.is_connected, "it has tried twice")
        await ear.flush()

        async def heard() -> bool:
            await ear.publish(SUBJECT, b"x")
            return bool(ear.heard)

        await eventually(heard, "it hears again")
        assert not nc._ended.is_set()
        await nc.close()
        await ear.close()

    uvloop.run(main())
