"""When the line dies between the question and the answer: stored once, or not at all, and known.

When the server does: `test_chaos.py`.
"""

from collections.abc import AsyncIterator

import pytest

from domain.base import Event
from eventstore.log import jetstream
from eventstore.log.store import Change, Conflict, EventStore, Tip
from runtime.local.servers import NatsServer
from tests.eventstore.log import CONTEXT, Proxy, append, connection, created, load, name_of, ref, renamed


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost answer is given up on soon."""
    monkeypatch.setattr(jetstream, "ANSWER_SECONDS", 0.5)


@pytest.fixture
async def proxy(server: NatsServer) -> AsyncIterator[Proxy]:
    async with Proxy(server.port) as made:
        yield made


MARKS = {1: b"HPUB nebula.events.", 3: b"Nats-Batch-Commit"}


def some(count: int) -> list[Event]:
    return [renamed(f"new {n}") for n in range(count)]


@pytest.mark.parametrize("count", MARKS)
async def test_an_answer_lost_is_learned(proxy: Proxy, store: EventStore, count: int) -> None:
    target = ref()
    tip = await append(store, Tip(target), created(target))
    async with connection(proxy.url) as client:
        proxy.lose_answer(MARKS[count])
        recorded = await EventStore(client, timeout=20).append([Change(tip, some(count))], CONTEXT)
    assert proxy.cuts == 1
    history = await store.history(target)
    assert [r.position for r in recorded] == [r.position for r in history[1:]]
    assert [r.digest for r in recorded] == [r.digest for r in history[1:]]
    assert len(history) == 1 + count


@pytest.mark.parametrize("count", MARKS)
async def test_a_request_lost_is_sent_again(proxy: Proxy, store: EventStore, count: int) -> None:
    target = ref()
    tip = await append(store, Tip(target), created(target))
    async with connection(proxy.url) as client:
        proxy.lose_request(MARKS[count])
        recorded = await EventStore(client, timeout=20).append([Change(tip, some(count))], CONTEXT)
    assert proxy.cuts == 1
    assert [r.position for r in await store.history(target)][1:] == [r.position for r in recorded]


@pytest.mark.parametrize("count", MARKS)
async def test_a_request_lost_to_a_rival_is_a_conflict(proxy: Proxy, store: EventStore, count: int) -> None:
    target = ref()
    tip = await append(store, Tip(target), created(target))

    async def rival() -> None:
        await append(store, tip, *(renamed("rival") for _ in range(count)))

    async with connection(proxy.url) as client:
        proxy.lose_request(MARKS[count])
        proxy.between = rival
        with pytest.raises(Conflict):
            await EventStore(client, timeout=20).append([Change(tip, some(count))], CONTEXT)
    assert [name_of(r) for r in await store.history(target)] == ["one"] + ["rival"] * count


async def test_an_answer_lost_is_learned_even_when_others_went_on(proxy: Proxy, store: EventStore) -> None:
    target = ref()
    tip = await append(store, Tip(target), created(target))

    async def goes_on() -> None:
        _, newest = await load(store, target)
        await append(store, newest, renamed("later"))

    async with connection(proxy.url) as client:
        proxy.lose_answer(MARKS[1])
        proxy.between = goes_on
        recorded = await EventStore(client, timeout=20).append([Change(tip, some(1))], CONTEXT)
    history = await store.history(target)
    assert [name_of(r) for r in history] == ["one", "new 0", "later"]
    assert recorded[0].position == history[1].position
