"""A queue is read whatever becomes of its consumer and of JetStream."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import pytest
from nats.errors import NoRespondersError, TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import ServiceUnavailableError

from eventstore.parking.parking import REPORTS, Parking
from handlers.queues import broker, queues
from handlers.queues.broker import InWork, Pulls
from handlers.queues.queues import Queues, consumer, consumer_name
from runtime import subjects
from runtime.bus import bus, streams
from runtime.local.servers import NatsServer
from runtime.settings import Common
from runtime.tasks import patience
from runtime.tasks.backoff import Backoff
from tests.waiting import eventually

CONSUMER = consumer(REPORTS, subjects.REPORTS_OF_ALL)
NAME = consumer_name(REPORTS)


class Reader:
    """A queue that notes what it reads."""

    def __init__(self, nc: bus.Connection) -> None:
        self.js = nc.jetstream()
        self.read: list[str] = []

    async def take(self, body: str, subject: str) -> None:
        self.read.append(body)

    async def reads_on(self) -> None:
        """What is published now is read."""
        body = uuid4().hex
        await self.js.publish(subjects.report("here", "vm", str(uuid4())), f'"{body}"'.encode())
        await eventually(lambda: body in self.read, "the report is read")


@asynccontextmanager
async def reader(nc: bus.Connection) -> AsyncIterator[Reader]:
    made = Reader(nc)
    work = Queues(nc, Parking(nc), 10)
    work.of(REPORTS, subjects.REPORTS_OF_ALL)(made.take)
    await work.start()
    try:
        yield made
    finally:
        await work.stop()


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
    ensure = broker.ensure

    async def counted(js: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
        nonlocal tries
        tries += 1
        if tries in (2, 3):
            raise ServiceUnavailableError(code=503, description="no leader")
        await ensure(js, stream, config)

    monkeypatch.setattr(broker, "ensure", counted)
    monkeypatch.setattr(queues, "WAIT", 0.5)
    async with reader(nc) as made:
        await made.reads_on()
        await made.js.delete_consumer(subjects.REPORTS, NAME)
        await made.reads_on()
        assert tries == 4, "it asks with pauses, and only until it is there"


async def test_a_start_without_jetstream_is_waited_for(nc: bus.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    away: list[Exception] = [NoRespondersError(), TimeoutError(), ServiceUnavailableError(code=503), OSError("reset")]
    ensure = broker.ensure

    async def sometimes(js: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
        if away:
            raise away.pop()
        await ensure(js, stream, config)

    monkeypatch.setattr(broker, "ensure", sometimes)
    monkeypatch.setattr(patience, "RETRY", Backoff(first=0.0, last=0.0))
    async with reader(nc) as made:
        await made.reads_on()
    assert away == []


async def test_a_consumer_gets_the_settings_of_this_version(nc: bus.Connection) -> None:
    js = nc.jetstream()
    await js.add_consumer(subjects.REPORTS, replace(CONSUMER, ack_wait=77, max_ack_pending=1))
    async with reader(nc) as made:
        found = await js.consumer_info(subjects.REPORTS, NAME)
        assert (found.config.ack_wait, found.config.max_ack_pending) == (5, 4096)
        await made.reads_on()


async def test_a_consumer_that_cannot_be_changed_is_made_anew(nc: bus.Connection) -> None:
    js = nc.jetstream()
    await js.add_consumer(subjects.REPORTS, replace(CONSUMER, deliver_policy=DeliverPolicy.NEW))
    async with reader(nc) as made:
        found = await js.consumer_info(subjects.REPORTS, NAME)
        assert found.config.deliver_policy == DeliverPolicy.ALL
        await made.reads_on()


@pytest.mark.parametrize("silence", [TimeoutError, NatsTimeout])
async def test_a_queue_without_messages_is_no_trouble(nc: bus.Connection, silence: type[Exception]) -> None:
    """nats-py says so in two ways."""

    class Silent:
        async def fetch(self, batch: int, timeout: float) -> list[object]:
            raise silence

    pulls = Pulls(nc.jetstream(), subjects.REPORTS, CONSUMER, Silent(), InWork(1))  # type: ignore[arg-type]
    assert await pulls.fetch(1, 0.1) == []
