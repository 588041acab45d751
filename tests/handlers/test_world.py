"""What the world makes of own events without folding them again, and who hears of what."""

import asyncio
import dataclasses
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from domain.base import Event
from domain.kinds import KINDS
from domain.project import PROJECT, ProjectCreated, ProjectRenamed, evolve
from domain.vm import VmRequested
from eventstore.log.envelope import Context, Recorded, Ref, appended, seal
from eventstore.log.judge import fields_to_check
from eventstore.log.store import Loaded, Tip
from handlers.world import backlog, world as world_module
from handlers.world.aggregates import Aggregates
from handlers.world.turns import Turns
from handlers.world.watch import Watch
from handlers.world.world import World
from runtime.tasks.tasks import end
from tests.waiting import eventually

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
DONE = {"at": AT, "operation": "o", "fingerprint": "f"}
REF = Ref("p", "project", "p")
MADE = ProjectCreated(**DONE, project="p", name="P", created_by="a")
RENAMED = ProjectRenamed(**DONE, name="Q")


def own(position: int, tip: Tip, event: Event) -> Recorded:
    headers, body = seal(tip.ref, tip.version + 1, tip.digest, event, Context(actor="a"))
    return appended(position, tip.ref, tip.ref.subject, headers, body, event)


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """The events that the world folds."""
    folded: list[Event] = []

    def counted(state: Any, event: Event) -> Any:
        folded.append(event)
        return evolve(state, event)

    monkeypatch.setitem(KINDS, "project", dataclasses.replace(PROJECT, evolve=counted))
    return folded


def test_what_the_decider_made_of_its_event_is_not_made_again(folds: list[Event]) -> None:
    world, made = World(), own(1, Tip(REF), MADE)
    after = Loaded(evolve(None, MADE), Tip(REF).after(made))
    world.foresee(made, Tip(REF), after)
    assert world.take(made) is None
    assert world.get(REF) is after and not folds
    renamed = own(2, after.tip, RENAMED)
    assert world.take(renamed) is None and folds == [RENAMED], "nobody foresaw this one"
    assert world.project("p") == evolve(after.state, RENAMED)


def test_what_was_foreseen_from_another_tip_counts_for_nothing(folds: list[Event]) -> None:
    world, made = World(), own(1, Tip(REF), MADE)
    world.take(made)
    first = own(2, world.get(REF).tip, RENAMED)
    world.foresee(first, Tip(REF), Loaded(None, Tip(REF)))
    world.take(first)
    found = world.project("p")
    assert found is not None and found.name == "Q" and folds == [MADE, RENAMED]


def test_a_message_of_somebody_else_at_a_foreseen_place_is_judged(folds: list[Event]) -> None:
    world, made = World(), own(1, Tip(REF), MADE)
    world.foresee(made, Tip(REF), Loaded(evolve(None, MADE), Tip(REF).after(made)))
    forged = replace(made, ours=False, headers={**made.headers, "ce-id": "project.p:7"})
    wrong = world.take(forged)
    assert wrong is not None and world.project("p") is None


def test_nothing_is_foreseen_of_what_has_come_already() -> None:
    world, made = World(), own(1, Tip(REF), MADE)
    world.take(*world.frontier.hand_on([made]))
    world.foresee(made, Tip(REF), Loaded(None, Tip(REF)))
    assert not world._foreseen


async def test_a_watch_hears_of_its_kinds_alone() -> None:
    world = World()
    images, all_ = world.watch(("image",)), world.watch()
    for watch in (images, all_):
        assert (await watch.next()).everything
    world.take(own(1, Tip(REF), MADE))
    world.nudge()
    assert (await all_.next()).refs == {REF}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await images.next()


async def test_a_change_that_the_watcher_made_itself_wakes_nobody() -> None:
    watch = Watch()
    await watch.next()
    watch.add(REF)
    watch.forget(REF)
    watch.nudge()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await watch.next()


@pytest.mark.parametrize(
    ("model", "fields"), [(ProjectCreated, {"at"}), (VmRequested, {"at", "deadline", "spec", "user_data"})]
)
def test_only_fields_that_may_hold_numbers_or_times_are_looked_at(model: type[BaseModel], fields: set[str]) -> None:
    found = set(fields_to_check(model) or ())
    assert fields <= found and not {"operation", "labels", "tags", "name"} & found


async def test_a_backlog_keeps_the_order_and_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MOST", 4)
    monkeypatch.setattr(backlog, "MOST_TAKEN", 3)
    all_ = [own(position, Tip(REF), MADE) for position in range(1, 8)]
    kept = backlog.Backlog()
    await kept.put(all_[:2])
    await kept.put(all_[2:5])
    waiting = asyncio.create_task(kept.put(all_[5:]))
    await asyncio.sleep(0)
    assert kept.full() and not waiting.done()
    assert kept.take() == all_[:3]
    await waiting
    await kept.wait()
    assert [*kept.take(), *kept.take()] == all_[3:]


async def test_what_cannot_be_folded_ends_the_following(monkeypatch: pytest.MonkeyPatch) -> None:
    """However quiet the log is."""

    async def one(nc: Any, after: int, *, event_keys: object, own_events: object) -> Any:
        yield [own(1, Tip(REF), MADE)]
        await asyncio.Event().wait()

    world = World()
    monkeypatch.setattr(world_module, "follow", one)
    monkeypatch.setattr(world, "take", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(5):
            await world.follow(None, Turns(lambda: 0))  # type: ignore[arg-type]


async def test_it_is_known_before_it_is_folded_while_many_commands_come(monkeypatch: pytest.MonkeyPatch) -> None:
    async def one(nc: Any, after: int, *, event_keys: object, own_events: object) -> Any:
        yield [own(1, Tip(REF), MADE)]
        await asyncio.Event().wait()

    world = World()
    monkeypatch.setattr(world_module, "follow", one)
    following = asyncio.create_task(world.follow(None, Turns(lambda: 100)))  # type: ignore[arg-type]
    await world.frontier.wait_for(1)
    assert world.project("p") is None
    await world.reached(1)
    assert world.project("p") is not None, "folded as soon as somebody asks for it"
    await end([following])


async def test_when_no_more_events_come_states_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(nc: Any, after: int, *, event_keys: object, own_events: object) -> Any:
        await asyncio.Event().wait()
        yield []

    world, tidied = World(), list[int]()
    monkeypatch.setattr(world_module, "follow", none)
    monkeypatch.setattr(world_module, "CALM", 0.0)
    monkeypatch.setattr(Aggregates, "crowded", property(lambda _: len(tidied) < 3))
    monkeypatch.setattr(world.aggregates, "tidy", tidied.append)
    following = asyncio.create_task(world.follow(None, Turns(lambda: 0)))  # type: ignore[arg-type]
    await eventually(lambda: len(tidied) == 3, "it packs some, again and again")
    assert not following.done()
    await end([following])
