"""When the line or the server dies between the question and the answer: stored once, or not at all, and known."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from domain.base import Event
from eventstore import jetstream
from eventstore.envelope import Recorded, Ref
from eventstore.store import Change, Conflict, EventStore, Tip, Unavailable
from runtime.servers import NatsServer, start_nats
from runtime.streams import ensure_all
from tests.eventstore.log import (
    CONTEXT,
    Proxy,
    append,
    broken_link,
    connection,
    created,
    everything,
    load,
    name_of,
    ref,
    renamed,
    some_id,
)

KILLS = 30


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


# ── a server that is killed, again and again ────────────────────────────────────────────────────────────────────────


@dataclass
class Ledger:
    """What the writers were told. Each append carries a name of its own."""

    stored: dict[str, list[int]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)

    async def append(self, store: EventStore, *tips: Tip) -> list[Tip]:
        name = some_id()
        try:
            recorded: list[Recorded] = await store.append([Change(tip, [renamed(name)]) for tip in tips], CONTEXT)
        except Conflict:
            self.refused.add(name)
            raise
        except Unavailable:
            self.unknown.add(name)
            raise
        self.stored[name] = [r.position for r in recorded]
        return [tip.after(r) for tip, r in zip(tips, recorded, strict=True)]


async def write_alone(store: EventStore, ledger: Ledger, over: asyncio.Event) -> None:
    """One event after the other onto an aggregate of its own: nobody else is there to conflict with."""
    tips = [Tip(ref())]
    while not over.is_set():
        tips = await ledger.append(store, *tips)


async def write_contended(
    store: EventStore, impatient: EventStore, ledger: Ledger, over: asyncio.Event, shared: Ref, width: int
) -> None:
    """Onto an aggregate that others write too; wider than 1, together with new ones in one batch."""
    while not over.is_set():
        try:
            _, tip = await load(impatient, shared)
        except Unavailable:
            continue
        try:
            await ledger.append(store, tip, *(Tip(ref()) for _ in range(width - 1)))
        except Conflict:
            continue


async def test_a_server_killed_at_any_moment_keeps_its_word(tmp_path: Path) -> None:
    chance = random.Random(1)
    ledger = Ledger()
    shared = [ref(), ref()]
    server = await start_nats(tmp_path)
    async with connection(server.url) as client:
        await ensure_all(client.jetstream(), 1)
        store, reader = EventStore(client, timeout=40), EventStore(client, timeout=1)
        writers: list[asyncio.Task[None]] = []
        for _ in range(KILLS):
            over, before = asyncio.Event(), len(ledger.stored)
            writers += [asyncio.create_task(write_alone(store, ledger, over)) for _ in range(4)]
            for target in shared:
                for width in (1, 1, 3):
                    writers.append(asyncio.create_task(write_contended(store, reader, ledger, over, target, width)))
            while len(ledger.stored) < before + 5:  # it is up, and they are at it
                await asyncio.sleep(0.002)
            await asyncio.sleep(chance.uniform(0, 0.03))
            await server.kill()
            over.set()
            server = await start_nats(tmp_path, port=server.port)
        ended = await asyncio.gather(*writers, return_exceptions=True)
        assert [e for e in ended if e is not None and not isinstance(e, Unavailable)] == []
        log = await everything(store)
    await server.stop()

    times = Counter(name_of(r) for r in log)
    where = {r.position: name_of(r) for r in log}
    for name, positions in ledger.stored.items():
        assert times[name] == len(positions), "acknowledged: there, and once"
        assert {where[p] for p in positions} == {name}
    assert not ledger.refused & times.keys(), "refused: absent"
    assert times.keys() <= ledger.stored.keys() | ledger.unknown
    histories: dict[Ref, list[Recorded]] = {}
    for recorded in log:
        histories.setdefault(recorded.ref, []).append(recorded)
    assert all(broken_link(history) is None for history in histories.values())
    assert len({r.id for r in log}) == len(log)
    told = f"{len(ledger.stored)} stored, {len(ledger.refused)} refused, {len(ledger.unknown)} unknown"
    print(f"{KILLS} kills: {told}; {len(log)} events of {len(histories)} aggregates")
