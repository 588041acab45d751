"""Durable work queues: what becomes of each message, whatever the function, the log and the process do."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError
from pydantic import BaseModel, ConfigDict

from eventstore.log.store import Conflict, Unavailable
from eventstore.parking.parked import Parked
from eventstore.parking.parking import REPORTS, Parking
from handlers.queues import queues
from handlers.queues.broker import Context, InWork
from handlers.queues.queues import PoisonMessage, Queues, consumer_name
from runtime import subjects
from runtime.bus import bus, streams
from runtime.local.servers import NatsServer
from runtime.settings import Common
from runtime.tasks import patience
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import end
from tests.waiting import eventually

NAME = consumer_name(REPORTS)
TRIES = 3
SUBJECT = subjects.report("n1", "vm", "v")


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: int


Function = Callable[[Order, int], Awaitable[None]]


@dataclass
class Process:
    """Handlers that have one queue, of orders. `calls`: which order the function was called for, how often by then."""

    nc: bus.Connection
    queues: Queues
    calls: list[tuple[int, int]] = field(default_factory=list)


@asynccontextmanager
async def process(url: str, function: Function) -> AsyncIterator[Process]:
    nc = await bus.connect(Common(nats_url=url), "tests")
    made = Process(nc, Queues(nc, Parking(nc), TRIES))

    @made.queues.of(REPORTS, subjects.REPORTS_OF_ALL)
    async def on_order(order: Order, subject: str) -> None:
        assert subject.startswith(SUBJECT)
        tries = 1 + sum(n == order.n for n, _ in made.calls)
        made.calls.append((order.n, tries))
        await function(order, tries)

    await made.queues.start()
    keeping = asyncio.create_task(made.queues.keep())
    try:
        yield made
    finally:
        await made.queues.stop()
        await end([keeping])
        await nc.close()


async def done(order: Order, tries: int) -> None:
    pass


@pytest.fixture
async def nc(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[bus.Connection]:
    monkeypatch.setattr(queues, "RETRY", Backoff(first=0.01, last=30.0))
    monkeypatch.setattr(queues, "GRACE", 0.05)
    monkeypatch.setattr(patience, "RETRY", Backoff(first=0.001, last=0.001))
    monkeypatch.setattr(queues, "ACK_WAIT", 300.0)  # what comes again does so because it was given back
    nc = await bus.connect(Common(nats_url=nats_server.url), "tests")
    used = [each for each in streams.platform_streams(1) if each.name in (subjects.REPORTS, subjects.PARKED)]
    for config in used:
        assert config.name is not None
        with contextlib.suppress(NotFoundError):  # one with the messages of other tests
            await nc.jetstream().delete_stream(config.name)
        await nc.jetstream().add_stream(config)
    yield nc
    for config in used:
        assert config.name is not None
        await nc.jetstream().delete_stream(config.name)
    await nc.close()


async def order(nc: bus.Connection, n: int) -> int:
    return await put(nc, json.dumps({"n": n}).encode())


async def put(nc: bus.Connection, body: bytes, **headers: str) -> int:
    """The position of a message with this body."""
    stored = await nc.jetstream().publish(SUBJECT, body, headers=headers or None)
    return stored.seq


async def deliveries(nc: bus.Connection) -> int:
    """How often JetStream has handed out a message, counting each time."""
    info = await nc.jetstream().consumer_info(subjects.REPORTS, NAME)
    assert info.delivered is not None
    return int(info.delivered.consumer_seq)


async def empty(nc: bus.Connection) -> None:
    """By what is acknowledged: a consumer says that nothing is left until it hears of a new message."""
    js = nc.jetstream()

    async def none() -> bool:
        done = (await js.consumer_info(subjects.REPORTS, NAME)).ack_floor
        return done is not None and done.stream_seq == (await js.stream_info(subjects.REPORTS)).state.last_seq

    await eventually(none, "every message is done")


async def parked(nc: bus.Connection) -> list[Parked]:
    """What is parked once the queue is empty."""
    await empty(nc)
    count = (await nc.jetstream().stream_info(subjects.PARKED)).state.messages
    return [await Parking(nc).at(position) for position in range(1, count + 1)]


async def test_the_first_message_ends_the_wait_and_what_is_there_comes_together(nc: bus.Connection) -> None:
    js = Context(nc, InWork(20))
    config = ConsumerConfig(durable_name="waits", filter_subject=subjects.REPORTS_OF_ALL)
    pulls = await js.pull_subscribe(stream=subjects.REPORTS, config=config)
    fetching = asyncio.create_task(pulls.fetch(10, 60.0))

    async def waits() -> bool:
        return bool((await js.consumer_info(subjects.REPORTS, "waits")).num_waiting)

    await eventually(waits, "the server knows of the reader")
    await js.publish(subjects.report("n1", "vm", "v0"), b"0")
    async with asyncio.timeout(30):
        first = await fetching
    assert [each.data for each in first] == [b"0"]
    for n in range(1, 13):
        await js.publish(subjects.report("n1", "vm", f"v{n}"), b"%d" % n)
    fetched = [[each.data for each in await pulls.fetch(10, 60.0)] for _ in range(2)]
    assert fetched == [[b"%d" % n for n in range(1, 11)], [b"11", b"12"]]
    await pulls.unsubscribe()


async def test_what_fails_comes_again(nats_server: NatsServer, nc: bus.Connection) -> None:
    async def fails_at_first(order: Order, tries: int) -> None:
        if tries < TRIES:
            raise RuntimeError("not now")

    async with process(nats_server.url, fails_at_first) as made:
        await order(nc, 7)
        assert await parked(nc) == []
    assert made.calls == [(7, 1), (7, 2), (7, 3)]


async def test_the_pauses_grow(nats_server: NatsServer, nc: bus.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Short:
        def after(self, failures: int) -> float:
            asked.append(failures)
            return 0.01

    async def fails(order: Order, tries: int) -> None:
        raise RuntimeError("never")

    monkeypatch.setattr(queues, "RETRY", Short())
    async with process(nats_server.url, fails):
        await order(nc, 7)
        await parked(nc)
    assert asked == list(range(1, TRIES))


async def test_what_fails_as_often_as_allowed_is_parked(nats_server: NatsServer, nc: bus.Connection) -> None:
    async def fails(order: Order, tries: int) -> None:
        if order.n == 7:
            raise ValueError(f"no luck at try {tries}")

    async with process(nats_server.url, fails) as made:
        position = await order(nc, 7)
        await order(nc, 8)
        [record] = await parked(nc)
    assert [call for call in made.calls if call[0] == 7] == [(7, 1), (7, 2), (7, 3)]
    assert (8, 1) in made.calls
    assert (record.source, record.key, record.position) == (REPORTS, str(position), position)
    assert (record.error, record.body) == ("ValueError('no luck at try 3')", b'{"n": 7}')


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b'{"n": "x"}', b'{"n": 1, "more": 1}', b"[" * 5000])
@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}], ids=["plain", "typed"])
async def test_what_does_not_fit_is_parked(
    nats_server: NatsServer, nc: bus.Connection, body: bytes, headers: dict[str, str]
) -> None:
    async with process(nats_server.url, done) as made:
        position = await put(nc, body, **headers)
        [record] = await parked(nc)
    assert (record.position, record.body, made.calls) == (position, body, [])
    assert record.error.startswith(("Invalid JSON: ", "n: ", "more: ", "Input should be an object"))
    assert not any(said in record.error for said in ("input_value", "pydantic", "'x'")), "the error repeats the body"


async def test_headers_do_not_say_what_a_body_is(nats_server: NatsServer, nc: bus.Connection) -> None:
    async with process(nats_server.url, done) as made:
        await put(nc, b'{"n": 5}', **{"content-type": "text/plain", "correlation_id": "x", "message_id": "y"})
        assert await parked(nc) == []
    assert made.calls == [(5, 1)]


async def test_what_the_function_calls_poison_is_parked(nats_server: NatsServer, nc: bus.Connection) -> None:
    async def judge(order: Order, tries: int) -> None:
        raise PoisonMessage("cannot be true")

    async with process(nats_server.url, judge) as made:
        await order(nc, 7)
        [record] = await parked(nc)
    assert (record.error, made.calls) == ("cannot be true", [(7, 1)])


@pytest.mark.parametrize("away", [Unavailable("no log"), Conflict("s")], ids=["unavailable", "conflict"])
async def test_the_log_away_is_no_try(nats_server: NatsServer, nc: bus.Connection, away: Exception) -> None:
    """However long it is away: what fails afterwards fails as often as any other message before it is parked."""
    left_away = 5 * TRIES

    async def needs_the_log(order: Order, tries: int) -> None:
        nonlocal left_away
        if left_away:
            left_away -= 1
            raise away
        if order.n == 7:
            raise RuntimeError("a bug")

    async with process(nats_server.url, needs_the_log) as made:
        await order(nc, 7)
        await order(nc, 8)
        [record] = await parked(nc)
        assert await deliveries(nc) == TRIES + 1
    assert record.error == "RuntimeError('a bug')"
    assert len(made.calls) == 5 * TRIES + TRIES + 1


async def test_parking_waits_for_the_bus(
    nats_server: NatsServer, nc: bus.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = 2 * TRIES
    park = Parking.park

    async def sometimes(self: Parking, *args: Any, **kwargs: Any) -> bool:
        nonlocal away
        if away:
            away -= 1
            raise Unavailable("the bus does not answer")
        return await park(self, *args, **kwargs)

    monkeypatch.setattr(Parking, "park", sometimes)
    async with process(nats_server.url, done):
        await put(nc, b"{")
        assert len(await parked(nc)) == 1
        assert await deliveries(nc) == 1


async def test_a_call_that_does_not_end_is_a_failure(
    nats_server: NatsServer, nc: bus.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(order: Order, tries: int) -> None:
        if order.n == 7:
            await asyncio.Event().wait()

    monkeypatch.setattr(queues, "LONGEST", 0.01)
    async with process(nats_server.url, hangs) as made:
        await order(nc, 7)
        [record] = await parked(nc)
    assert (record.error, len(made.calls)) == ("TimeoutError()", TRIES)


async def test_a_long_call_says_that_it_goes_on(
    nats_server: NatsServer, nc: bus.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or JetStream would give the message to somebody else as well."""
    heard, goes_on = asyncio.Event(), asyncio.Event()

    async def acks(msg: Msg) -> None:
        if msg.data == b"+WPI":
            goes_on.set()

    async def long(order: Order, tries: int) -> None:
        heard.set()
        await goes_on.wait()

    monkeypatch.setattr(queues, "ACK_WAIT", 1.0)
    await nc.subscribe(f"$JS.ACK.{subjects.REPORTS}.{NAME}.>", cb=acks)
    await nc.flush()
    async with process(nats_server.url, long):
        await order(nc, 7)
        await heard.wait()
        await goes_on.wait()
        await empty(nc)


async def test_a_stop_lets_functions_end(
    nats_server: NatsServer, nc: bus.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def waits(order: Order, tries: int) -> None:
        begun.set()
        await go_on.wait()

    monkeypatch.setattr(queues, "GRACE", 60.0)
    async with process(nats_server.url, waits) as made:
        await order(nc, 7)
        await begun.wait()
        stopping = asyncio.create_task(made.queues.stop())
        for _ in range(50):  # it would be cut off by then
            await asyncio.sleep(0)
        go_on.set()
        await stopping
        assert await parked(nc) == []


async def held(*_: Any) -> None:
    await asyncio.Event().wait()


async def no_log(*_: Any) -> None:
    raise Unavailable("no log")


@pytest.mark.parametrize(("function", "grace"), [(held, 0.05), (no_log, 3600.0)])
async def test_a_stop_in_the_middle_gives_the_message_to_another_process(
    nats_server: NatsServer, nc: bus.Connection, monkeypatch: pytest.MonkeyPatch, function: Function, grace: float
) -> None:
    """What waits for the log is not waited for."""
    monkeypatch.setattr(queues, "GRACE", grace)
    async with process(nats_server.url, function) as first:
        await order(nc, 7)
        await eventually(lambda: first.calls, "the first one has it")
        async with process(nats_server.url, done) as second:
            stopping = asyncio.create_task(first.queues.stop())
            await eventually(stopping.done, "the first one stops")
            await eventually(lambda: second.calls, "the second one has it")
            assert await parked(nc) == []
            assert await deliveries(nc) == 2
    assert second.calls == [(7, 1)]


@pytest.mark.parametrize("fails", [False, True], ids=["done", "to come again"])
async def test_a_message_whose_bus_is_gone_makes_one_line_and_no_traceback(
    nats_server: NatsServer, nc: bus.Connection, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def waits(order: Order, tries: int) -> None:
        begun.set()
        await go_on.wait()
        if fails:
            raise RuntimeError("not now")

    async with process(nats_server.url, waits) as first:
        await order(nc, 7)
        await begun.wait()
        await first.nc.close()
        go_on.set()
        await eventually(lambda: caplog.records, "it says so")
    [line] = caplog.records
    assert (line.levelname, line.exc_info) == ("WARNING", None)
    assert line.getMessage() == "a message is not acknowledged, and comes again: ConnectionClosedError()"


async def test_a_message_whose_work_is_cancelled_writes_no_traceback(
    nats_server: NatsServer, nc: bus.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The process stops meanwhile; another one gets the message."""
    began = asyncio.Event()

    async def slow(order: Order, tries: int) -> None:
        began.set()
        await asyncio.Event().wait()

    await order(nc, 1)
    async with process(nats_server.url, slow):
        await began.wait()
    lines = [record for record in caplog.records if record.name == "handlers.faststream"]
    assert ["comes again" in record.getMessage() for record in lines] == [True]
    assert not lines[0].exc_info
    async with process(nats_server.url, done) as second:
        await eventually(lambda: second.calls, "it comes again")


async def test_two_processes_share_a_queue(nats_server: NatsServer, nc: bus.Connection) -> None:
    """No message goes to both, and none waits for the one that is busy."""
    busy = asyncio.Event()

    async def slow(order: Order, tries: int) -> None:
        await busy.wait()

    count = 5 * queues.BATCH
    # All are there before the first one asks, so it gets a whole batch at once. The stream keeps few of a subject.
    for n in range(count):
        await nc.jetstream().publish(f"{SUBJECT}{n}", json.dumps({"n": n}).encode())
    async with process(nats_server.url, slow) as first, process(nats_server.url, done) as second:

        def all_but_those_of_the_first() -> bool:
            return bool(first.calls) and len(first.calls) + len(second.calls) == count

        await eventually(all_but_those_of_the_first, "each has some")
        busy.set()
        await empty(nc)
    assert len(first.calls) <= queues.BATCH
    assert sorted(n for n, _ in first.calls + second.calls) == list(range(count))


async def test_a_header_does_not_make_the_handlers_publish_anywhere(
    nats_server: NatsServer, nc: bus.Connection
) -> None:
    """FastStream answers on the subject that a header names: an event in the log, by whoever may report."""
    async with process(nats_server.url, done) as made:
        await put(nc, b'{"n": 1}', reply_to=subjects.report("forged", "vm", "v"))
        await eventually(lambda: made.calls, "it is read")
        await order(nc, 2)
        await empty(nc)
    assert (await nc.jetstream().stream_info(subjects.REPORTS)).state.messages == 2


async def test_a_message_that_is_read_writes_no_line(
    nats_server: NatsServer, nc: bus.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    """FastStream's own logger would write two, in a form of its own."""
    async with process(nats_server.url, done):
        await order(nc, 7)
        await empty(nc)
    said = capsys.readouterr()
    assert said.out + said.err == ""


async def test_a_queue_needs_to_know_where_its_messages_go_back_to(nc: bus.Connection) -> None:
    with pytest.raises(KeyError, match="unheard"):
        Queues(nc, Parking(nc), 1).of("unheard", "nebula.unheard.*")


async def test_a_slow_message_delays_no_other(nats_server: NatsServer, nc: bus.Connection) -> None:
    """Not even those that are requested later, as long as not all that may be in work are slow."""
    slow_ones, count = queues.BATCH - 1, 3 * queues.BATCH
    busy = asyncio.Event()

    async def some_are_slow(order: Order, tries: int) -> None:
        if order.n < slow_ones:
            await busy.wait()

    async with process(nats_server.url, some_are_slow) as made:
        for n in range(count):
            await nc.jetstream().publish(f"{SUBJECT}{n}", json.dumps({"n": n}).encode())
        await eventually(lambda: len(made.calls) == count, "all others are processed meanwhile")
        busy.set()
        await empty(nc)


async def test_no_more_are_taken_than_are_processed(nats_server: NatsServer, nc: bus.Connection) -> None:
    """What one process has taken, no other gets."""
    busy = asyncio.Event()

    async def slow(order: Order, tries: int) -> None:
        await busy.wait()

    async with process(nats_server.url, slow) as made:
        for n in range(3 * queues.BATCH):
            await nc.jetstream().publish(f"{SUBJECT}{n}", json.dumps({"n": n}).encode())
        await eventually(lambda: len(made.calls) == queues.BATCH, "as many are processed as may be")
        await asyncio.sleep(0.3)
        assert await deliveries(nc) == queues.BATCH
        busy.set()
        await empty(nc)
    assert sorted(n for n, _ in made.calls) == list(range(3 * queues.BATCH))
