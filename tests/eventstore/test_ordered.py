"""The ordered consumer that all readers of a stream share: what it says beside the messages themselves."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from runtime.bus import ordered
from runtime.local.servers import NatsServer
from tests.eventstore.log import Proxy, connection, some_id
from tests.waiting import eventually


@pytest.fixture
async def stream(nc: Client) -> AsyncIterator[str]:
    name = some_id()
    await nc.jetstream().add_stream(StreamConfig(name=name, subjects=[f"{name}.>"]))
    yield name
    await nc.jetstream().delete_stream(name)


def position(_message: Msg, at: int, _stored: int) -> int:
    return at


async def test_the_end_of_what_is_there_is_said_at_once(
    nc: Client, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By no heartbeat: a node plans nothing before it has all its documents."""
    monkeypatch.setattr(ordered, "HEARTBEAT", 60.0)
    async with aclosing(ordered.consume(nc, stream, 0, [f"{stream}.>"], position)) as batches:
        assert await anext(batches) == ([], 0, False)
        count = 3 * ordered.MOST
        for number in range(count):
            await nc.publish(f"{stream}.{number}", b"")
        await nc.jetstream().publish(f"{stream}.last", b"")
    async with aclosing(ordered.consume(nc, stream, 0, [f"{stream}.>"], position)) as batches:
        found: list[int] = []
        async for batch in batches:
            found += batch.items
            assert batch.items and batch.position == found[-1]
            assert batch.more == (batch.position <= count)
            if not batch.more:
                break
    assert found == [*range(1, count + 2)]


async def test_a_connection_that_is_replaced_is_noticed_without_a_heartbeat(
    nc: Client, stream: str, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "HEARTBEAT", 3600.0)
    async with Proxy(server.port) as proxy, connection(proxy.url) as reader:
        await nc.jetstream().publish(f"{stream}.1", b"")
        async with aclosing(ordered.follow(reader, stream, 0, [f"{stream}.>"], position)) as batches:
            assert await anext(batches) == [1]
            (consumer,) = await nc.jetstream().consumers_info(stream)

            async def pushed() -> bool:
                found = await nc.jetstream().consumer_info(stream, consumer.name)
                return found.delivered is not None and found.delivered.consumer_seq == 2

            proxy.deaf = True
            await nc.jetstream().publish(f"{stream}.2", b"")
            await eventually(pushed, "it is lost on the line")
            proxy.cut()
            proxy.deaf = False
            assert await anext(batches) == [2]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "$JS.ACK",
        "nebula.events.p.vm.v",
        "$JS.ACK.S.C.1.x.1.1.0",
        "$JS.ACK.S.C.1.1",
        f"$JS.ACK.S.C.1.1.{'9' * 5000}.1.0",
    ],
)
def test_the_reply_of_what_no_consumer_has_pushed_is_refused(reply: str) -> None:
    with pytest.raises(ValueError):
        ordered.delivered(reply)
