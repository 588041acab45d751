"""One reader for all feeds: each feed has each event of its filters once and in order, whatever happens to the reader.

The log is real. Feeds are read as the gateway makes them, without HTTP.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore, Tip
from gateway import hub as hubs
from gateway.access.auth import Authentication
from gateway.access.identity import LOCAL
from gateway.events import alone, feed
from gateway.http.problems import Problem
from gateway.hub import Hub
from gateway.monitoring.metrics import Metrics
from runtime import subjects
from runtime.bus import ordered
from runtime.bus.streams import ensure_all
from runtime.local.servers import start_nats
from runtime.tasks.tasks import end
from tests.eventstore.log import append, connection, created, folder_to_keep, ref, renamed
from tests.waiting import eventually


class Gateway:
    """As much of a gateway as a feed needs: all parts are real."""

    def __init__(self, nc: Client) -> None:
        self.nc = nc
        self.store = EventStore(nc, timeout=20)
        self.hub = Hub(nc, self.store)
        self.access = Authentication(None)
        self.metrics = Metrics()
        self.stop = asyncio.Event()
        self.ending: set[asyncio.Task[None]] = set()

    def end(self, task: asyncio.Task[None]) -> None:
        ending = asyncio.create_task(end([task]))
        self.ending.add(ending)


class Reader:
    """Reads a feed in a task of its own. `slow`: seconds for each chunk at most."""

    def __init__(self, gateway: Any, after: int, filters: list[str], slow: float = 0.0) -> None:
        self.after, self.filters, self.slow = after, filters, slow
        self.items: list[tuple[int, int]] = []
        self.ids: list[int] = []
        self.comments: list[str] = []
        self.task = asyncio.create_task(self._read(gateway))

    async def _read(self, gateway: Any) -> None:
        made: Any = feed.items(gateway, LOCAL, self.after, self.filters)
        async with aclosing(made) as frames:
            async for chunk in frames:
                for text in chunk.decode().split("\n\n")[:-1]:
                    self._note(text)
                if self.slow:
                    await asyncio.sleep(random.uniform(0, self.slow))

    def _note(self, text: str) -> None:
        if text.startswith(":"):
            self.comments.append(text)
        for line in text.split("\n"):
            name, _, value = line.partition(": ")
            if name == "id":
                self.ids.append(int(value))
            elif name == "data":
                event = json.loads(value)
                assert event["position"] == self.ids[-1]
                self.items.append((event["position"], event["prev"]))

    def has(self, positions: list[int]) -> bool:
        """Whether it has exactly these, with the right `prev`. Fails for anything that is wrong already."""
        assert not self.task.done() or self.task.cancelled(), self.task
        found = [position for position, _ in self.items]
        assert found == positions[: len(found)]
        assert [before for _, before in self.items] == [self.after, *found][: len(found)]
        return len(found) == len(positions)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that went away is noticed soon."""
    monkeypatch.setattr(ordered, "HEARTBEAT", 0.2)
    monkeypatch.setattr(ordered, "_FIRST_WAIT", 0.5)
    monkeypatch.setattr(ordered, "SURE", 0.5)
    monkeypatch.setattr(hubs, "AGAIN", 0.1)
    monkeypatch.setattr(alone, "LATER", 0.1)


@asynccontextmanager
async def log(home: Path) -> AsyncIterator[tuple[Any, Any]]:
    """A server of its own with an empty log, and a gateway on it."""
    server = await start_nats(home)
    async with connection(server.url) as nc:
        await ensure_all(nc.jetstream(), 1)
        gateway = Gateway(nc)
        try:
            yield gateway, server
        finally:
            gateway.stop.set()
            await gateway.hub.close()
            await asyncio.wait_for(asyncio.gather(*gateway.ending), 30)
    await server.stop()


class Writer:
    """Appends events of a few projects. `of` says which positions match a filter."""

    def __init__(self, store: EventStore, projects: int = 4) -> None:
        self._store = store
        self._tips: dict[Ref, Tip] = {}
        self._refs = [ref(f"p{number % projects}", f"r{number}") for number in range(projects * 3)]
        self.log: list[tuple[int, str]] = []

    async def write(self, count: int = 1) -> int:
        for _ in range(count):
            target = random.choice(self._refs)
            tip = self._tips.get(target)
            event = created(target) if tip is None else renamed("x")
            self._tips[target] = tip = await append(self._store, tip or Tip(target), event)
            self.log.append((tip.position, target.subject))
        return self.log[-1][0]

    def of(self, filters: list[str], after: int) -> list[int]:
        wanted = [one.split(".") for one in filters]
        return [
            position
            for position, subject in self.log
            if position > after
            and any(all(w in ("*", t) for w, t in zip(one, subject.split("."), strict=True)) for one in wanted)
        ]

    def some_filters(self) -> list[str]:
        target = random.choice(self._refs)
        return random.choice(
            [
                [subjects.events()],
                [subjects.events(target.project)],
                [target.subject],
                [subjects.events("p0"), subjects.events("p1")],
                [subjects.events("of-nobody")],
            ]
        )


async def all_have(readers: list[Reader], writer: Writer) -> None:
    await eventually(
        lambda: all(reader.has(writer.of(reader.filters, reader.after)) for reader in readers), "all have all", 120
    )


async def let_go(readers: list[Reader]) -> None:
    await end([reader.task for reader in readers])


async def test_500_feeds_that_join_anywhere_while_events_come(tmp_path: Path) -> None:
    async with log(tmp_path) as (gateway, _):
        writer = Writer(gateway.store)
        await writer.write(150)
        readers: list[Reader] = []
        for _ in range(50):
            last = writer.log[-1][0]
            readers += [Reader(gateway, random.randint(0, last), writer.some_filters()) for _ in range(10)]
            await writer.write(4)
        await all_have(readers, writer)
        assert all(reader.ids[0] == reader.after for reader in readers), "the first frame says where it begins"
        await let_go(readers)
        assert gateway.metrics.feeds._value.get() == 0


async def test_the_log_is_read_once_for_all_that_are_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    real = hubs.frame
    monkeypatch.setattr(hubs, "frame", lambda recorded: made.append(recorded.position) or real(recorded))  # type: ignore[func-returns-value]
    async with log(tmp_path) as (gateway, _):
        writer = Writer(gateway.store)
        last = await writer.write(5)
        readers = [Reader(gateway, last, writer.some_filters()) for _ in range(60)]
        await eventually(lambda: gateway.hub.start is not None, "the hub runs")

        async def one_consumer() -> bool:
            info = await gateway.nc.jetstream().stream_info(subjects.EVENTS)
            return bool(info.state.consumer_count == 1)

        await eventually(one_consumer, "nobody reads alone")
        await writer.write(20)
        await all_have(readers, writer)
        assert made == [position for position, _ in writer.log if position > last]
        await let_go(readers)


async def test_a_feed_that_is_too_slow_for_the_ring_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "MOST", 8)
    monkeypatch.setattr(hubs, "_STEP", 2)
    monkeypatch.setattr(feed, "AT_A_TIME", 3)
    async with log(tmp_path) as (gateway, _):
        writer = Writer(gateway.store)
        last = await writer.write(5)
        readers = [Reader(gateway, last, writer.some_filters(), slow=0.05) for _ in range(30)]
        for _ in range(30):
            await writer.write(10)
        assert len(gateway.hub._frames) <= 10
        await all_have(readers, writer)
        await let_go(readers)


async def test_large_events_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "MOST_BYTES", 3000)
    async with log(tmp_path) as (gateway, _):
        writer = Writer(gateway.store)
        last = await writer.write(3)
        readers = [Reader(gateway, last, [subjects.events()]) for _ in range(5)]
        await writer.write(50)
        await all_have(readers, writer)
        assert gateway.hub._bytes == sum(len(one.text) for one in gateway.hub._frames) <= 3000
        await let_go(readers)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["cancelled", "failing"])
async def test_the_reader_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    async with log(tmp_path) as (gateway, _):
        writer = Writer(gateway.store)
        last = await writer.write(5)
        readers = [Reader(gateway, last, writer.some_filters()) for _ in range(40)]
        await eventually(lambda: gateway.hub.start is not None, "the hub runs")
        for _ in range(3):
            await writer.write(7)
            if how == "cancelled":
                gateway.hub._task.cancel()
            else:
                monkeypatch.setattr(hubs, "frame", None)
                await writer.write()
                await eventually(lambda: gateway.hub.start is None, "the hub has failed")
                monkeypatch.undo()
            await writer.write(7)
        await all_have(readers, writer)
        await eventually(lambda: gateway.hub.start is not None, "it runs again")
        await let_go(readers)


@pytest.mark.usefixtures("impatient")
async def test_the_log_goes_away_and_comes_back(tmp_path: Path) -> None:
    async with log(tmp_path) as (gateway, server):
        writer = Writer(gateway.store)
        last = await writer.write(10)
        readers = [Reader(gateway, random.randint(0, last), writer.some_filters()) for _ in range(30)]
        await writer.write(5)
        servers = [server]
        for _ in range(2):
            await servers[-1].kill()
            servers.append(await start_nats(tmp_path, port=server.port))
            await writer.write(10)
        await all_have(readers, writer)
        await let_go(readers)
        await servers[-1].stop()


@pytest.mark.usefixtures("impatient")
async def test_another_log_ends_the_feeds(tmp_path: Path) -> None:
    folder_to_keep(tmp_path)
    async with log(tmp_path) as (gateway, _):
        writer = Writer(gateway.store)
        last = await writer.write(10)
        readers = [Reader(gateway, last, writer.some_filters()) for _ in range(5)]
        await writer.write(2)
        await all_have(readers, writer)
        js = gateway.nc.jetstream()
        await js.delete_stream(subjects.EVENTS)
        await ensure_all(js, 1)
        await asyncio.wait_for(asyncio.gather(*(reader.task for reader in readers)), 60)


async def test_a_feed_that_waits_says_how_far_the_log_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 0.2)
    async with log(tmp_path) as (gateway, _):
        writer = Writer(gateway.store)
        last = await writer.write(5)
        reader = Reader(gateway, last, [subjects.events("of-nobody")])
        both = Reader(gateway, last, [subjects.events("of-nobody"), subjects.events("of-nobody-else")])
        new = await writer.write(5)
        await eventually(lambda: reader.ids[-1] == both.ids[-1] == new, "it says that it has nothing up to here")
        assert reader.comments[-1].startswith(": alive") and not reader.items
        await let_go([reader, both])


@pytest.mark.parametrize("slow", [0.0, 0.2])
async def test_whoever_may_not_read_any_more_gets_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: float
) -> None:
    async with log(tmp_path) as (gateway, _):
        writer = Writer(gateway.store)
        last = await writer.write(5)
        readers = [Reader(gateway, after, [subjects.events()], slow) for after in (0, last)]
        await writer.write(5)
        await eventually(lambda: all(reader.items for reader in readers), "they read")

        def still(_: Any) -> Any:
            raise Problem(401, "unauthorized", "it was revoked")

        monkeypatch.setattr(gateway.access, "still", still)
        for watch in tuple(gateway.access._watches):
            gateway.access._look(watch)
        await asyncio.wait_for(asyncio.gather(*(reader.task for reader in readers)), 20)
        for reader in readers:
            assert reader.comments[-1] == ": ended: unauthorized"


async def test_the_reader_ends_after_the_last_feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "LINGER", 0.3)
    async with log(tmp_path) as (gateway, _):
        writer = Writer(gateway.store)
        last = await writer.write(5)
        subscriptions = len(gateway.nc._subs)
        first = Reader(gateway, last, [subjects.events()])
        await writer.write(2)
        await all_have([first], writer)
        await let_go([first])
        second = Reader(gateway, last, [subjects.events()])
        await all_have([second], writer)
        task = gateway.hub._task
        assert not task.done(), "it went on for the next one"
        await let_go([second])
        await eventually(lambda: task.done() and len(gateway.nc._subs) == subscriptions, "it has ended")
        third = Reader(gateway, last, [subjects.events()])
        await writer.write(2)
        await all_have([third], writer)
        await let_go([third])
