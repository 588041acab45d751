"""What holds of the log, and of the list it is compared with: the model earns its trust here."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
from nats.aio.client import Client

from domain.named import Named
from domain.project import evolve
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.follow import follow
from eventstore.log.store import Change, Conflict, EventStore, Tip
from runtime import subjects
from tests.eventstore.both import told
from tests.eventstore.log import CONTEXT, created, noted, ref, renamed, some_id
from tests.eventstore.model import ModelStore

Feed = Callable[[int, list[str] | None], AsyncGenerator[list[Recorded], None]]


@dataclass
class Log:
    store: EventStore | ModelStore
    feed: Feed

    async def append(self, tip: Tip, *names: str) -> Tip:
        recorded = await self.store.append([Change(tip, [noted(name) for name in names])], CONTEXT)
        return tip.after(recorded[-1])

    async def filled(self, target: Ref, count: int) -> list[Recorded]:
        await self.append(Tip(target), *(str(n) for n in range(count)))
        return await self.store.history(target)

    async def take(self, count: int, after: int, filters: list[str] | None) -> list[Recorded]:
        found: list[Recorded] = []
        async with asyncio.timeout(20), aclosing(self.feed(after, filters)) as batches:
            async for batch in batches:
                found += batch
                if len(found) >= count:
                    break
        return found


@pytest.fixture(params=["model", "real"])
def log(request: pytest.FixtureRequest, store: EventStore, nc: Client) -> Log:
    if request.param == "real":
        return Log(store, lambda after, filters: follow(nc, after, filters, event_keys=None))
    model = ModelStore()
    return Log(model, model.follow)


async def test_what_is_appended_is_what_is_there(log: Log) -> None:
    one, two = ref(), ref()
    recorded = await log.store.append(
        [Change(Tip(one), [created(one), renamed("two")]), Change(Tip(two), [created(two)])], CONTEXT
    )
    assert [r.position - recorded[0].position for r in recorded] == [0, 1, 2]
    assert [r.version for r in recorded] == [1, 2, 1]
    assert list(map(told, await log.store.history(one))) == list(map(told, recorded[:2]))
    loaded = await log.store.load(one, evolve)
    assert isinstance(loaded.state, Named)
    assert loaded.state.name == "two"
    assert loaded.tip == Tip(one).after(recorded[1])
    assert await log.store.last_position() == recorded[-1].position


async def test_of_what_never_was_there_is_nothing(log: Log) -> None:
    target = ref()
    assert await log.store.append([], CONTEXT) == []
    assert await log.store.append([Change(Tip(target, 7, 7), [])], CONTEXT) == []
    assert await log.store.history(target) == []
    loaded: Any = await log.store.load(target, evolve)
    assert (loaded.state, loaded.tip) == (None, Tip(target))


async def test_until_is_the_last_that_counts(log: Log) -> None:
    history = await log.filled(target := ref(), 4)
    first = history[0].position
    assert await log.store.history(target, at=first - 1) == []
    assert await log.store.history(target, at=first) == history[:1]
    assert await log.store.history(target, at=first + 2) == history[:3]
    assert await log.store.history(target, at=10**9) == history


@pytest.mark.parametrize("age", [1, 2, -1])
async def test_only_the_newest_tip_counts(log: Log, age: int) -> None:
    target = ref()
    tips = [Tip(target)]
    for name in ("one", "two"):
        tips.append(await log.append(tips[-1], name))
    ahead = Tip(target, 3, tips[-1].position + 1000, tips[-1].digest)
    with pytest.raises(Conflict) as raised:
        await log.append(ahead if age < 0 else tips[-1 - age], "never")
    assert raised.value.subject == target.subject
    assert len(await log.store.history(target)) == 2


@pytest.mark.parametrize("moved", [0, 1, 2])
async def test_of_several_none_is_stored_when_one_has_moved_on(log: Log, moved: int) -> None:
    targets = [ref(), ref(), ref()]
    await log.append(Tip(targets[moved]), "rival")
    with pytest.raises(Conflict) as raised:
        await log.store.append([Change(Tip(target), [created(target)]) for target in targets], CONTEXT)
    assert raised.value.subject == targets[moved].subject
    assert [len(await log.store.history(target)) for target in targets] == [int(n == moved) for n in range(3)]


async def test_at_the_same_tip_one_is_first(log: Log) -> None:
    target = ref()
    outcomes = await asyncio.gather(*(log.append(Tip(target), str(n)) for n in range(12)), return_exceptions=True)
    won = [outcome for outcome in outcomes if isinstance(outcome, Tip)]
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 11
    assert won == [(await log.store.load(target, evolve_nothing)).tip]


def evolve_nothing(_state: None, _event: Any) -> None: ...


async def test_alone_looks_at_all_that_the_filter_covers(log: Log) -> None:
    target, elsewhere = ref(), ref()
    alone = subjects.events(kind="project", id_=target.id)
    await log.append(Tip(ref(target.project)), "a neighbour")
    [first] = await log.store.append([Change(Tip(target), [created(target)], alone)], CONTEXT)
    await log.append(Tip(target).after(first), "more")
    with pytest.raises(Conflict):
        await log.store.append([Change(Tip(Ref("blue", "project", target.id)), [created(target)], alone)], CONTEXT)
    with pytest.raises(Conflict) as raised:
        await log.store.append(
            [
                Change(Tip(elsewhere), [created(elsewhere)]),
                Change(Tip(other := Ref("red", "project", target.id)), [created(target)], alone),
            ],
            CONTEXT,
        )
    assert raised.value.subject == other.subject
    assert await log.store.history(elsewhere) == []


async def test_each_level_of_filters_is_read_and_followed_alike(log: Log) -> None:
    red, blue, a, b = some_id(), some_id(), some_id(), some_id()
    refs = [Ref(red, "project", a), Ref(red, "tag", a), Ref(blue, "project", b), Ref(blue, "vm", b)]
    written = [(await log.filled(target, 2)) for target in refs]
    start = written[0][0].position
    for filter_, covered in {
        subjects.events(red): [0, 1],
        subjects.events(red, "tag"): [1],
        subjects.events(red, "tag", a): [1],
        subjects.events(red, None, a): [0, 1],
        subjects.events(None, None, b): [2, 3],
        subjects.events(None, "vm", b): [3],
        subjects.events(): [0, 1, 2, 3],
    }.items():
        due = [recorded for n in covered for recorded in written[n]]
        assert await log.store.read(start - 1, filter_) == due
        assert await log.store.read(start - 1, filter_, 1) == due[:1]
        assert await log.store.read(due[0].position, filter_) == due[1:]
        assert await log.store.read(due[-1].position, filter_) == []
        assert await log.take(len(due), start - 1, [filter_]) == due
        assert await log.take(len(due) - 1, due[0].position, [filter_]) == due[1:]
    assert await log.store.read(10**9) == []
    two = [refs[1].subject, refs[2].subject]
    assert await log.take(4, 0, two) == [*written[1], *written[2]]


async def test_a_feed_hands_out_what_comes(log: Log) -> None:
    [recorded] = await log.filled(target := ref(), 1)
    async with asyncio.timeout(20), aclosing(log.feed(recorded.position, [target.subject])) as feed:
        coming = asyncio.create_task(anext(feed))
        await asyncio.sleep(0.05)
        tip = await log.append(Tip(target).after(recorded), "later")
        assert [r.position for r in await coming] == [tip.position]
