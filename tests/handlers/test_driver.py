"""The driver of the managers: one bad item delays no other, and what goes wrong can be seen."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from eventstore.log.store import Conflict, Unavailable
from eventstore.vault.vault import VaultUnavailable
from handlers.health import public_status
from handlers.managers import driver as module, failure
from handlers.managers.driver import Driver
from handlers.managers.failure import RETRY, RETRY_CONFLICT, RETRY_PASSING, Failure, failed
from handlers.world.watch import Changes, Watch
from runtime.tasks.backoff import Backoff
from tests.waiting import eventually

ALL = Changes(frozenset(), everything=True)


@pytest.fixture(autouse=True)
def tiny_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RETRY", "RETRY_PASSING", "RETRY_CONFLICT"):
        monkeypatch.setattr(failure, name, Backoff(first=0.001, last=0.01))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the driver logs as errors and warnings."""
    found: list[tuple[str, dict[str, Any]]] = []

    class Log:
        def __init__(self, bound: dict[str, Any]) -> None:
            self.bound = bound

        def bind(self, **more: Any) -> "Log":
            return Log({**self.bound, **more})

        def error(self, text: str, **more: Any) -> None:
            found.append((text, {**self.bound, **more}))

        warning = error

    monkeypatch.setattr(module, "log", Log({}))
    return found


class Items:
    """A manager whose items do what a test says."""

    def __init__(self, **works: Callable[[], Awaitable[Any]]) -> None:
        self.works = works
        self.done: list[str] = []
        self.looks: list[Changes] = []
        self.at_once = self.most_at_once = 0

    async def look(self, changes: Changes, driver: Driver) -> None:
        self.looks.append(changes)
        for key in self.works:
            driver.submit(key, lambda key=key: self._work(key))  # type: ignore[misc]

    async def _work(self, key: str) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.works[key]()
        finally:
            self.at_once -= 1
        self.done.append(key)

    async def finish(self, key: str) -> None:
        self.done.append(key)


async def well() -> None:
    """An item that succeeds."""


async def hangs() -> None:
    await asyncio.Event().wait()


class Fails:
    """An item that fails so many times, and then succeeds."""

    def __init__(self, error: Exception, times: int = 10**9) -> None:
        self.error, self.times, self.tries = error, times, 0

    async def __call__(self) -> None:
        self.tries += 1
        if self.tries <= self.times:
            raise self.error


@asynccontextmanager
async def running(driver: Driver) -> AsyncIterator[Driver]:
    task = asyncio.create_task(driver.run())
    try:
        yield driver
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ── pauses ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "name", "retry"),
    [
        (ValueError("a bug"), "RETRY", RETRY),
        (Unavailable("away"), "RETRY_PASSING", RETRY_PASSING),
        (VaultUnavailable("away"), "RETRY_PASSING", RETRY_PASSING),
        (OSError("away"), "RETRY_PASSING", RETRY_PASSING),
        (Conflict("s"), "RETRY_CONFLICT", RETRY_CONFLICT),
    ],
)
def test_pauses_grow_up_to_a_bound(
    error: Exception, name: str, retry: Backoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure, name, retry)
    before: Failure | None = None
    for times in range(1, 40):
        before = failed(before, error)
        assert before.times == times
        whole = min(retry.first * 2 ** (times - 1), retry.last)
        assert whole / 2 <= before.pause <= whole
    assert len({failed(None, error).pause for _ in range(20)}) > 1, "they differ"


# ── items ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_item_that_hangs_delays_no_other(lines: list[Any]) -> None:
    """Nor do many of them: when they are tried again, they take half of the places at most."""
    works = {f"hangs-{n}": hangs for n in range(10)} | {f"well-{n}": well for n in range(10)}
    items, watch = Items(**works), Watch()
    async with running(Driver("m", items.look, watch=watch, at_a_time=4, item_seconds=0.05)) as driver:
        await eventually(lambda: len(items.done) >= 10, "the others are done")
        assert not any(key.startswith("hangs") for key in items.done)
        assert items.most_at_once == 4
        items.works = {**works, **{f"late-{n}": well for n in range(10)}}
        watch.ring()
        await eventually(lambda: sum(key.startswith("late") for key in items.done) >= 10, "later ones are done")
        await eventually(lambda: driver.status().failing_since, "it shows")
        assert "TooLong" in (driver.status().last_error or "")


async def test_a_key_never_runs_twice_at_a_time_and_the_last_asking_counts() -> None:
    go, seen = asyncio.Event(), list[str]()
    at_once = 0

    async def work(said: str) -> None:
        nonlocal at_once
        at_once += 1
        assert at_once == 1
        await go.wait()
        seen.append(said)
        at_once -= 1

    async def look(changes: Changes, driver: Driver) -> None: ...

    driver = Driver("m", look, period=9)
    driver.submit("k", lambda: work("first"))
    await asyncio.sleep(0)
    driver.submit("k", lambda: work("second"))
    driver.submit("k", lambda: work("third"))
    go.set()
    await eventually(lambda: not driver.knows("k"), "it is forgotten")
    assert seen == ["first", "third"]


async def test_an_item_that_fails_with_a_bug_is_told_once_and_tried_again(
    lines: list[tuple[str, dict[str, Any]]],
) -> None:
    bad = Fails(ValueError("a bug"))
    items = Items(bad=bad, good=well)
    driver = Driver("m", items.look, period=9)
    await driver.round(ALL)
    await eventually(lambda: bad.tries >= 6, "it is tried again")
    status = driver.status()
    bad.times = 0
    assert (status.items, status.last_error, status.last_success) == (("bad",), "ValueError: a bug", None)
    await eventually(lambda: not driver.known(), "all is done")
    assert items.done == ["good", "bad"]
    [(text, fields)] = lines
    assert (text, fields["item"], fields["exc_info"]) == ("manager failed; trying again", "bad", bad.error)
    after = driver.status()
    assert (after.failing_since, after.items, after.backing_off) == (None, (), 0)
    assert after.last_success is not None


@pytest.mark.parametrize("error", [ValueError("a bug"), Conflict("s")], ids=lambda error: type(error).__name__)
async def test_an_item_that_failed_waits_for_its_pause(
    error: Exception, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RETRY", "RETRY_CONFLICT"):
        monkeypatch.setattr(failure, name, Backoff(first=3600.0, last=3600.0))
    bad = Fails(error)
    driver = Driver("m", Items(bad=bad).look, period=9)
    await driver.round(ALL)
    await eventually(lambda: driver.status().backing_off == 1, "it backs off")
    for _ in range(10):
        await driver.round(ALL)
        await asyncio.sleep(0)
    assert (bad.tries, driver.status().backing_off) == (1, 1)
    await driver.close()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_race_that_was_lost_is_no_failure(lines: list[Any], times: int) -> None:
    raced = Fails(Conflict("s"), times)
    items = Items(raced=raced)
    driver = Driver("m", items.look, period=9)
    await driver.round(ALL)
    while driver.known():
        assert driver.status().failing_since is None
        await asyncio.sleep(0)
    assert (raced.tries, lines) == (times + 1, [])


async def test_one_that_is_lost_again_and_again_is(lines: list[tuple[str, dict[str, Any]]]) -> None:
    raced = Fails(Conflict("s"))
    driver = Driver("m", Items(raced=raced).look, period=9)
    await driver.round(ALL)
    await eventually(lambda: driver.status().failing_since, "it shows")
    raced.times = 0
    await eventually(lambda: not driver.known(), "it succeeds")
    assert [text for text, _ in lines] == ["manager waits"]


async def test_a_dropped_item_ends_and_may_begin_anew() -> None:
    items = Items()
    driver = Driver("m", items.look, period=9)
    driver.submit("k", hangs)
    await asyncio.sleep(0)
    driver.drop("k")
    driver.drop("never heard of")
    await eventually(lambda: not driver.knows("k"), "it is forgotten")
    driver.submit("k", hangs)
    await asyncio.sleep(0)
    driver.drop("k")
    driver.submit("k", lambda: items.finish("k"))
    await eventually(lambda: not driver.knows("k"), "the new one is done")
    assert items.done == ["k"]
    assert driver.status().last_error is None


async def test_what_is_cancelled_from_within_is_not_taken_for_done(lines: list[Any]) -> None:
    class Cancelled(Fails):
        async def __call__(self) -> None:
            self.tries += 1
            if self.tries == 1:
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future

    work = Cancelled(ValueError())
    driver = Driver("m", Items(k=work).look, period=9)
    await driver.round(ALL)
    await eventually(lambda: not driver.known(), "it is done")
    assert work.tries == 2


async def test_an_ended_driver_leaves_nothing_behind(lines: list[Any]) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await hangs()
        finally:
            ended.set()

    driver = Driver("m", Items(k=work, bad=Fails(ValueError())).look, watch=Watch())
    async with running(driver):
        await eventually(lambda: driver.status().running and driver.status().failing_since, "both have begun")
    assert ended.is_set()
    assert driver.status().running == 0


@pytest.mark.parametrize("work", [well, Fails(ValueError())])
async def test_an_item_that_has_just_ended_does_not_trouble_a_driver_that_ends(
    work: Callable[[], Awaitable[None]], lines: list[Any]
) -> None:
    """Its callback comes after the driver has forgotten all items; the same key may run again by then."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    driver = Driver("m", Items().look, period=9, per_lane=1)
    driver.submit("k", work, "lane")
    driver.submit("behind", hangs, "lane")
    await asyncio.sleep(0)
    await driver.close()
    driver._closed = False
    driver.submit("k", hangs, "lane")
    await asyncio.sleep(0)
    assert errors == []
    assert (driver.known(), driver.status().running) == ({"k"}, 1)
    await driver.close()
    assert (driver.known(), driver.status().running) == (set(), 0)


# ── rounds ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [Unavailable("away"), VaultUnavailable("away")])
async def test_the_log_away_ends_the_round(error: Exception, lines: list[tuple[str, dict[str, Any]]]) -> None:
    """What has not begun is not tried, and all of it is looked at again once the log is there."""
    away = {f"k{n}": Fails(error, 10**9) for n in range(50)}
    items, watch = Items(**away), Watch()
    driver = Driver("m", items.look, watch=watch, at_a_time=2)
    await driver.round(ALL)
    await eventually(lambda: driver.status().failing_since and not driver.begun(), "the round ends")
    assert sum(work.tries > 0 for work in away.values()) <= module.MOST_AWAY + 1
    async with running(driver):
        for work in away.values():
            work.times = 0
        await eventually(lambda: set(items.done) == away.keys(), "all are done")
        assert items.looks[-1].everything
        await eventually(lambda: driver.status().failing_since is None, "it is well again")
    assert {text for text, _ in lines} == {"manager waits"}


async def test_a_look_that_fails_is_repeated_after_a_pause(lines: list[tuple[str, dict[str, Any]]]) -> None:
    looks: list[Changes] = []
    broken = True

    async def look(changes: Changes, driver: Driver) -> None:
        looks.append(changes)
        if broken:
            raise KeyError("a bug")

    async with running(Driver("m", look, watch=Watch())) as driver:
        await eventually(lambda: len(looks) > 3, "it is repeated")
        assert (driver.status().failing_since, driver.status().last_success) != (None, None)
        broken = False
        await eventually(lambda: driver.status().last_success, "it succeeds")
        assert driver.status().failing_since is None
    assert all(changes.everything for changes in looks)
    assert [fields["item"] for _, fields in lines] == ["look"]


async def test_a_look_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, lines: list[Any]) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)

    async def look(changes: Changes, driver: Driver) -> None:
        await hangs()

    driver = Driver("m", look, period=9)
    await driver.round(ALL)
    assert driver.status().failing_since is not None


async def test_a_change_and_the_period_wake_it() -> None:
    by_watch, watch = Items(), Watch()
    async with running(Driver("m", by_watch.look, watch=watch)):
        await eventually(lambda: by_watch.looks, "it looks at first")
        watch.ring()
        await eventually(lambda: len(by_watch.looks) == 2, "it looks after a change")
        await asyncio.sleep(0.02)
        assert len(by_watch.looks) == 2
    assert [changes.everything for changes in by_watch.looks] == [True, False]
    by_time = Items()
    async with running(Driver("m", by_time.look, period=0.001)):
        await eventually(lambda: len(by_time.looks) >= 3, "it looks again and again")
    by_both = Items()
    async with running(Driver("m", by_both.look, watch=Watch(), period=0.001)):
        await eventually(lambda: len(by_both.looks) >= 3, "and so it does beside a watch")


async def test_many_items_are_named_a_few_at_a_time(lines: list[Any]) -> None:
    works = {f"k{n}": Fails(ValueError("a bug")) for n in range(60)}
    driver = Driver("m", Items(**works).look, period=9)
    await driver.round(ALL)
    await eventually(lambda: all(work.tries for work in works.values()), "all were tried")
    await eventually(lambda: driver.status().backing_off == 60 or driver.status().running, "they back off")
    status = driver.status()
    assert len(status.items) == module.NAMED
    said = public_status(status)
    assert status.failing_since is not None
    assert datetime.fromisoformat(str(said["failing_since"])) == status.failing_since
    assert "a bug" not in str(said), "anybody may ask for health"
    await driver.close()


async def test_items_of_one_lane_that_hang_leave_slots_for_the_others() -> None:
    done: list[str] = []
    free = asyncio.Event()

    async def hangs(key: str) -> None:
        await free.wait()
        done.append(key)

    async def works(key: str) -> None:
        done.append(key)

    async def look(changes: Changes, driver: Driver) -> None:
        for number in range(20):
            driver.submit(f"slow {number}", partial(hangs, f"slow {number}"), "slow")
        for number in range(20):
            driver.submit(f"fast {number}", partial(works, f"fast {number}"), "fast")

    driver = Driver("m", look, period=3600, at_a_time=8, per_lane=3)
    await driver.round(ALL)
    await eventually(lambda: len(done) == 20, "the others are done")
    assert all(key.startswith("fast") for key in done) and driver.status().running == 3
    assert len(driver.begun()) == 20, "those that wait behind their lane wait for a slot"
    free.set()
    await eventually(lambda: not driver.known(), "all are done")
    assert done[20:] == [f"slow {number}" for number in range(20)], "in order"


async def test_an_item_behind_its_lane_can_be_dropped_and_the_others_follow() -> None:
    done: list[str] = []
    free = asyncio.Event()

    async def works(key: str) -> None:
        await free.wait()
        done.append(key)

    async def look(changes: Changes, driver: Driver) -> None:
        for number in range(6):
            driver.submit(str(number), partial(works, str(number)), "one")

    driver = Driver("m", look, period=3600, per_lane=1)
    await driver.round(ALL)
    driver.drop("1")
    driver.drop("0")
    free.set()
    await eventually(lambda: not driver.known(), "all are done")
    assert done == ["2", "3", "4", "5"]
    await driver.round(ALL)
    await driver.close()
    assert not driver.known() and not driver.begun()
