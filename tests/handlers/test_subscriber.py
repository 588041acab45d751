"""The queue of reports is read whatever becomes of its consumer and of JetStream."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import pytest
from faststream.nats import NatsMessage
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.api import DeliverPolicy
from nats.js.errors import ServiceUnavailableError

from handlers import subscriber
from handlers.subscriber import CONSUMER, Queue, broker_of, consumer
from runtime import bus, patience, streams, subjects
from runtime.local.servers import NatsServer
from runtime.settings import Common
from tests.waiting import eventually


class Reader:
    """A broker that notes what it reads."""

    def __init__(self, nc: bus.Connection) -> None:
        self.js = nc.jetstream()
        self.read: list[bytes] = []

    async def take(self, body: bytes, msg: NatsMessage) -> None:
        self.read.append(body)

    async def reads_on(self) -> None:
        """What is published now is read."""
        body = uuid4().hex.encode()
        await self.js.publish(subjects.report("here", "vm", str(uuid4())), body)
        await eventually(lambda: body in self.read, "the report is read")


@asynccontextmanager
async def reader(nc: bus.Connection) -> AsyncIterator[Reader]:
    made = Reader(nc)
    broker = broker_of(nc, made.take)
    await broker.start()
    try:
        yield made
    finally:
        await broker.stop()


@pytest.fixture
async def nc(nats_server: NatsServer) -> AsyncIterator[bus.Connection]:
    nc = await bus.connect(Common(nats_url=nats_server.url), "tests")
    [config] = [each for each in streams.platform_streams(1) if each.name == subjects.REPORTS]
    await nc.jetstream().add_stream(config)
    yield nc
    await nc.jetstream().delete_stream(subjects.REPORTS)
    await nc.close()


async def test_a_consumer_that_somebody_deleted_is_made_anew(
    nc: bus.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    ensure = subscriber.ensure

    async def counted(js: JetStreamContext) -> None:
        nonlocal tries
        tries += 1
        if tries in (2, 3):
            raise ServiceUnavailableError(code=503, description="no leader")
        await ensure(js)

    monkeypatch.setattr(subscriber, "ensure", counted)
    monkeypatch.setattr(subscriber, "WAIT", 0.5)
    async with reader(nc) as made:
        await made.reads_on()
        await made.js.delete_consumer(subjects.REPORTS, CONSUMER)
        await made.reads_on()
        assert tries == 4, "it asks with pauses, and only until it is there"


async def test_a_start_without_jetstream_is_waited_for(nc: bus.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    away: list[Exception] = [NoRespondersError(), TimeoutError(), ServiceUnavailableError(code=503), OSError("reset")]
    ensure = subscriber.ensure

    async def sometimes(js: JetStreamContext) -> None:
        if away:
            raise away.pop()
        await ensure(js)

    monkeypatch.setattr(subscriber, "ensure", sometimes)
    monkeypatch.setattr(patience, "pauses", lambda: iter([0.0] * 10))
    async with reader(nc) as made:
        await made.reads_on()
    assert away == []


async def test_a_consumer_gets_the_settings_of_this_version(nc: bus.Connection) -> None:
    js = nc.jetstream()
    await js.add_consumer(subjects.REPORTS, replace(consumer(), ack_wait=77, max_ack_pending=1))
    async with reader(nc) as made:
        found = await js.consumer_info(subjects.REPORTS, CONSUMER)
        assert (found.config.ack_wait, found.config.max_ack_pending) == (5, 256)
        await made.reads_on()


async def test_a_consumer_that_cannot_be_changed_is_made_anew(nc: bus.Connection) -> None:
    js = nc.jetstream()
    await js.add_consumer(subjects.REPORTS, replace(consumer(), deliver_policy=DeliverPolicy.NEW))
    async with reader(nc) as made:
        found = await js.consumer_info(subjects.REPORTS, CONSUMER)
        assert found.config.deliver_policy == DeliverPolicy.ALL
        await made.reads_on()


@pytest.mark.parametrize("silence", [TimeoutError, NatsTimeout])
async def test_a_queue_without_reports_is_no_trouble(nc: bus.Connection, silence: type[Exception]) -> None:
    """nats-py says so in two ways."""

    class Pulls:
        async def fetch(self, batch: int, timeout: float) -> list[object]:
            raise silence

    assert await Queue(nc.jetstream(), Pulls()).fetch(1, 0.1) == []  # type: ignore[arg-type]


async def test_a_header_does_not_make_the_handlers_publish_anywhere(nc: bus.Connection) -> None:
    """FastStream answers on the subject that a header names: an event in the log, by whoever may report."""
    target = subjects.report("forged", "vm", str(uuid4()))
    async with reader(nc) as made:
        body = uuid4().hex.encode()
        await made.js.publish(subjects.report("here", "vm", str(uuid4())), body, headers={"reply_to": target})
        await eventually(lambda: body in made.read, "the report is read")
        await made.reads_on()
    assert (await made.js.stream_info(subjects.REPORTS, subjects_filter=target)).state.subjects is None


async def test_a_message_that_is_read_writes_no_line(nc: bus.Connection, capsys: pytest.CaptureFixture[str]) -> None:
    """FastStream's own logger would write two, in a form of its own."""
    async with reader(nc) as made:
        await made.reads_on()
    said = capsys.readouterr()
    assert said.out + said.err == ""
