"""A reader of pages looks again only for messages that it does not have yet, and as soon as there is a new hint."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.errors import APIError

from eventstore.log.envelope import Recorded
from eventstore.log.follow import pushed
from eventstore.log.store import Change, EventStore, Tip
from runtime import subjects
from runtime.bus import hints, polling, reading
from runtime.bus.inbox import Inbox
from runtime.bus.ordered import Batch
from runtime.tasks.backoff import Backoff
from tests.bus_accounts.conftest import Guarded
from tests.event_keys import KEYS
from tests.eventstore.log import CONTEXT, created, ref
from tests.waiting import eventually

#: Seconds that a test does not wait for, and those that it waits at most for what happens.
NEVER, SOON = 3600.0, 30.0

Batches = AsyncIterator[Batch[Recorded]]


@pytest.fixture
async def batches(guarded: Guarded) -> AsyncIterator[Batches]:
    """What projections read of the log, from its end on."""
    nc = guarded.connections["projections"]
    reading_all = reading.consume(nc, subjects.EVENTS, 0, [subjects.events()], partial(pushed, None))
    async with contextlib.aclosing(reading_all) as found:
        assert not (await anext(found)).more
        yield found


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """The number of looks, by the position after which they looked."""
    page, looks = reading.page, Counter[int]()

    async def counted(nc: Client, inbox: Inbox, stream: str, after: int, *more: Any) -> Batch[Any]:
        found: Batch[Any] = await page(nc, inbox, stream, after, *more)
        looks[after] += 1
        return found

    monkeypatch.setattr(reading, "page", counted)
    return looks


async def refused(guarded: Guarded) -> None:
    """A hint without a message: the log refuses to store it."""
    js = guarded.connections["handlers"].jetstream()
    with pytest.raises(APIError):
        headers = {"Nats-Expected-Last-Subject-Sequence": "999"}
        await js.publish(subjects.event("p", "vm", "v"), b"refused", headers=headers)


@pytest.mark.parametrize("count", [1, 3])
async def test_what_is_found_is_not_looked_for_again(
    guarded: Guarded, batches: Batches, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Also when several messages are stored as one batch, whose hints all come before it."""
    monkeypatch.setattr(hints, "PATIENCE", NEVER)
    store = EventStore(guarded.connections["handlers"], KEYS)
    for _ in range(3):
        changes = [Change(Tip(one), [created(one)]) for one in (ref() for _ in range(count))]
        await store.append(changes, CONTEXT)
        found: list[Recorded] = []
        async with asyncio.timeout(SOON):
            while len(found) < count:
                found += (await anext(batches)).items
            assert not (await anext(batches)).items  # it would look for ever for what it does not recognise


@pytest.mark.parametrize("remembered", [1, 10])
async def test_a_new_hint_ends_the_pause_after_an_earlier_one(
    guarded: Guarded, batches: Batches, looks: Counter[int], monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    """Also if there are more hints than it remembers."""
    monkeypatch.setattr(hints, "MOST", remembered)
    monkeypatch.setattr(hints, "PATIENCE", NEVER)
    monkeypatch.setattr(hints, "AGAIN", Backoff(first=NEVER, last=NEVER, jitter=0.0))
    reading_on = asyncio.ensure_future(anext(batches))
    await refused(guarded)
    await eventually(lambda: looks[0], "the reader has looked")
    one = ref()
    await EventStore(guarded.connections["handlers"], KEYS).append([Change(Tip(one), [created(one)])], CONTEXT)
    await refused(guarded)  # the hint of the event may have come before it was stored
    async with asyncio.timeout(SOON):
        assert [recorded.subject for recorded in (await reading_on).items] == [one.subject]


async def test_a_message_that_was_refused_is_looked_for_no_longer_than_its_time(
    guarded: Guarded, batches: Batches, looks: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "PATIENCE", 0.05)
    reading_on = asyncio.ensure_future(anext(batches))
    await refused(guarded)
    async with asyncio.timeout(SOON):
        assert not (await reading_on).more
    assert looks[0] > 1


async def test_while_many_messages_come_it_looks_without_hints(
    guarded: Guarded, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds all messages, once and in order, and hears hints again when few come."""
    monkeypatch.setattr(polling, "BUSY", 4)
    monkeypatch.setattr(polling, "WINDOW", NEVER)
    nc, store = guarded.connections["projections"], EventStore(guarded.connections["handlers"], KEYS)
    heard: set[bool] = set()
    found: list[int] = []

    async def read() -> None:
        async for batch in batches:
            found.extend(recorded.position for recorded in batch.items)
            heard.add(any(one.subject == subjects.events() for one in nc._subs.values()))

    reading_all = asyncio.create_task(read())
    for number in range(1, 101):
        one = ref()
        await store.append([Change(Tip(one), [created(one)])], CONTEXT)
        if number == 50:
            await eventually(lambda: False in heard, "it hears no hints")
            heard.clear()
            await eventually(lambda: True in heard, "it hears hints again")
    await eventually(lambda: len(found) >= 100, "it has found all")
    reading_all.cancel()
    await asyncio.gather(reading_all, return_exceptions=True)
    assert found == list(range(1, 101))
