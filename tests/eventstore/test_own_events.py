"""A reader that knows the events of its own process: all events once, in order, and its own ones without reading."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from nats.aio.client import Client

from eventstore.log.envelope import Recorded
from eventstore.log.follow import follow
from eventstore.log.frontier import Frontier
from eventstore.log.store import Change, EventStore, Tip
from runtime.bus import polling, reading
from runtime.bus.inbox import Inbox
from runtime.bus.ordered import Batch
from tests.event_keys import KEYS
from tests.eventstore.log import CONTEXT, created, ref
from tests.waiting import eventually

#: Seconds that no test waits for, and those that it waits at most for what happens.
NEVER, SOON = 3600.0, 30.0


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """It looks by itself from the first message on, and at others' events only when it has to. Counts the pages."""
    monkeypatch.setattr(polling, "BUSY", 1)
    monkeypatch.setattr(polling, "CALM", 10**9)
    monkeypatch.setattr(polling, "SELDOM", NEVER)
    page, pages = reading.page, Counter[str]()

    async def counted(nc: Client, inbox: Inbox, stream: str, *more: Any) -> Batch[Any]:
        found: Batch[Any] = await page(nc, inbox, stream, *more)
        pages[stream] += 1
        return found

    monkeypatch.setattr(reading, "page", counted)
    return pages


class Reader:
    """A process that appends (`store`), and what it has read of the log, from its end at the start on."""

    def __init__(self, nc: Client) -> None:
        self.frontier = Frontier()
        self.store = EventStore(nc, KEYS, frontier=self.frontier)
        self.found: list[Recorded] = []
        self._nc = nc

    async def run(self, after: int) -> None:
        async with aclosing(follow(self._nc, after, event_keys=KEYS, own_events=self.frontier)) as batches:
            async for batch in batches:
                self.frontier.add_read(batch)
                self.found += self.frontier.hand_on(batch)

    async def append(self, store: EventStore | None = None) -> Recorded:
        one = ref()
        [recorded] = await (store or self.store).append([Change(Tip(one), [created(one)])], CONTEXT)
        return recorded


@pytest.fixture
async def reader(nc: Client, looks: Counter[str]) -> AsyncIterator[Reader]:
    made = Reader(nc)
    end = await made.store.last_position()
    made.frontier.begin(end, [])
    running = asyncio.create_task(made.run(end))
    first = await made.append()  # after this one it looks by itself
    await eventually(lambda: made.found, "it has read the first event")
    assert [one.position for one in made.found] == [first.position]
    await eventually(lambda: looks, "it has looked for events of others once, and found none")
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def positions(found: list[Recorded]) -> list[int]:
    return [one.position for one in found]


async def test_its_own_events_are_not_read(reader: Reader, looks: Counter[str]) -> None:
    before = looks.total()
    own = await asyncio.gather(*(reader.append() for _ in range(100)))
    await eventually(lambda: len(reader.found) == 101, "it knows its own events")
    assert {one.position: one for one in reader.found[1:]} == {one.position: one for one in own}
    assert positions(reader.found) == sorted(positions(reader.found))
    assert looks.total() == before


async def test_it_hears_of_each_event_when_others_append_as_well(
    reader: Reader, nc: Client, monkeypatch: pytest.MonkeyPatch, looks: Counter[str]
) -> None:
    monkeypatch.setattr(polling, "FEW", 1)
    monkeypatch.setattr(polling, "SELDOM", 0.0)
    other, last = EventStore(nc, KEYS), 0
    for _ in range(2):
        last = (await reader.append(other)).position
        await eventually(lambda: reader.found[-1].position >= last, "it has read it")  # noqa: B023
    before = looks.total()
    for number in range(1, 4):
        await reader.append(other)
        await eventually(lambda: reader.found[-1].position == last + number, "it has heard of it")  # noqa: B023
    assert looks.total() == before


async def test_events_of_others_are_read_at_the_gap_that_they_make(reader: Reader, nc: Client) -> None:
    other = EventStore(nc, KEYS)
    every = []
    for _ in range(20):
        every.append(await reader.append(other))
        every += await asyncio.gather(*(reader.append() for _ in range(3)))
    await eventually(lambda: len(reader.found) == len(every) + 1, "all are read")
    assert positions(reader.found[1:]) == sorted(positions(every))


async def test_who_waits_for_an_event_of_another_process_gets_it(
    reader: Reader, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "REST", NEVER)
    other = EventStore(nc, KEYS)
    for _ in range(3):
        async with asyncio.timeout(SOON):
            await reader.frontier.wait_for((await reader.append(other)).position)
    reader.frontier.urge()
    last = await reader.append(other)
    reader.frontier.urge()  # the one before may have come before the event
    await eventually(lambda: reader.found[-1].position == last.position, "it has looked")


async def test_it_hears_of_events_again_when_few_come(
    reader: Reader, nc: Client, monkeypatch: pytest.MonkeyPatch, looks: Counter[str]
) -> None:
    monkeypatch.setattr(polling, "BUSY", 10**9)
    monkeypatch.setattr(polling, "CALM", 2)
    other = EventStore(nc, KEYS)
    last = 0
    for _ in range(10):  # also in the moment in which it changes over
        last = (await reader.append(other)).position
        await asyncio.sleep(polling.REST)
    await eventually(lambda: reader.found[-1].position == last, "it has read all of them")
    before = looks.total()
    for number in range(1, 4):
        await reader.append(other)
        await eventually(lambda: reader.found[-1].position == last + number, "it has heard of it")  # noqa: B023
    assert looks.total() == before
    assert positions(reader.found) == sorted({*positions(reader.found)})
