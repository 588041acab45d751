"""One driver runs every background loop: when to look, what to do after a failure, and what operators can see of it.

A manager is a function that looks at what has changed and calls `driver.each(key, work)` for each item that needs
something. The rules are here:

- A manager is woken by a change of the world (a `Watch`) and every `period` seconds.
- Looking does not wait for the items. Up to `at_a_time` of them run beside each other, each key once at a time and in
  the order of asking. What is asked again meanwhile is done once more, as it was asked last: work looks at the world
  anew and may find nothing to do.
- An item that fails is tried again after a pause of its own, which grows and differs, up to a bound. Items that failed
  take half of the places at most, so that those which hang again leave room for all others.
- An error that passes by itself (the log is away, somebody else appended first) is one line. Any other error is a bug,
  or something from outside that nobody mapped: it is logged with its traceback, once, and ends nothing.
- When several items in a row find the log away, the round ends: what has not begun is dropped, and everything is
  looked at again after a pause.
- Of several handlers processes one holds the lease of the managers (`lease.py`). A manager works only there, unless it
  is one that works `everywhere`. Where the lease is lost, what runs is cancelled and what waits is forgotten; where it
  is gained, everything is looked at.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from handlers.managers.failure import AWAY, Broken, Failure, failed, limit
from handlers.managers.lease import Lease
from handlers.world.world import Changes, Watch
from runtime import logs
from runtime.tasks.tasks import end, heed_cancellation

log = logs.get(__name__)

#: Items that run at a time, unless the manager says otherwise.
AT_A_TIME = 16
#: Seconds that one item may take, unless the manager says otherwise; and those that one look may take.
ITEM_SECONDS, LOOK_SECONDS = 30.0, 300.0
#: Items in a row that find the log away before the round ends.
MOST_AWAY = 3
#: Items that are named in the status.
NAMED = 20

Work = Callable[[], Awaitable[Any]]


@dataclass(slots=True)
class Item:
    """What a key needs. It waits for a place, runs (`task`), or backs off (`timer`)."""

    work: Work
    again: bool = False
    dropped: bool = False
    failure: Failure | None = None
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What operators can read of a manager. `items` are some of those that fail."""

    name: str
    period: float | None
    #: whether it works in this process now; and whether it does so in every process
    works: bool
    everywhere: bool
    runs: int
    last_run: datetime | None
    last_success: datetime | None
    last_error: str | None
    failing_since: datetime | None
    running: int
    backing_off: int
    items: tuple[str, ...]


class Driver:
    """Runs one manager. `look` is called with what has changed; `watch` and `period` say when.

    `item_seconds`: how long an item may take; None where only its work knows. `ended` is called behind each item.
    `everywhere`: it works in every handlers process, whoever has the lease.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[Changes, "Driver"], Awaitable[None]],
        *,
        watch: Watch | None = None,
        period: float | None = None,
        at_a_time: int = AT_A_TIME,
        item_seconds: float | None = ITEM_SECONDS,
        ended: Callable[[], None] = lambda: None,
        everywhere: bool = False,
    ) -> None:
        assert watch is not None or period is not None, "nothing would ever wake it"
        self.name = name
        self._look = look
        self._watch = watch
        self._period = period
        self._at_a_time = at_a_time
        self._item_seconds = item_seconds
        self._ended = ended
        self._everywhere = everywhere
        self._lease: Lease | None = None
        self._items: dict[str, Item] = {}
        #: what waits for a place: for the first time, and after a failure
        self._fresh: dict[str, None] = {}
        self._due: dict[str, None] = {}
        self._running: set[str] = set()
        self._retrying = 0
        self._failing = 0
        self._retried_last = False
        self._closed = False
        #: why the last look failed, and why the last round ended; not to look again before
        self._blind: Failure | None = None
        self._cut: Failure | None = None
        self._not_before = 0.0
        self._away = 0
        self._runs = 0
        self._last_run: datetime | None = None
        self._last_success: datetime | None = None
        self._last_error: str | None = None

    async def run(self, lease: Lease | None = None) -> None:
        """Never returns. With a lease, it works while that is held."""
        self._lease = None if self._everywhere else lease
        while True:
            if self._lease is not None:
                self._closed = True
                await self._lease.begin()
            self._closed = False
            try:
                await (self._rounds() if self._lease is None else self._while_held(self._lease))
            finally:
                await self.close()

    async def _rounds(self) -> None:
        while True:
            changes = await self._woken()
            if self._lease is not None and not self._lease.held:  # time is up, and nobody has noticed yet
                await self._lease.begin()
                changes = Changes(frozenset(), everything=True)
            await self.round(changes)

    async def _while_held(self, lease: Lease) -> None:
        """Rounds, until the lease is lost."""
        tasks = [asyncio.create_task(self._rounds(), name=self.name), asyncio.create_task(lease.lost())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(tasks)
        if not tasks[0].cancelled():
            tasks[0].result()

    async def close(self) -> None:
        """End all items, and begin no more. Whoever begins again looks at everything."""
        self._closed = True
        await end([item.task for item in self._items.values() if item.task is not None])
        for key in list(self._items):
            self._forget(key)
        self._blind = self._cut = None
        self._away, self._not_before = 0, 0.0
        if self._watch is not None:
            self._watch.ring(everything=True)

    async def round(self, changes: Changes) -> None:
        """One look, which begins items. What fails is backed off from, and never raised."""
        self._runs += 1
        self._last_run = datetime.now(UTC)
        try:
            async with limit(LOOK_SECONDS):
                await self._look(changes, self)
            heed_cancellation()
        except Exception as error:
            self._blind = self._failed("look", self._blind, error)
            self._pause(self._blind)
        else:
            self._blind = None
            if not self._items:
                self._cut = None
                self._well()

    # ── items ───────────────────────────────────────────────────────────────────────────────────────────────────

    def each(self, key: str, work: Work) -> None:
        """Do what one item needs, as soon as it has a place; after its pause, where it failed lately."""
        item = self._items.get(key)
        if item is None:
            self._items[key] = Item(work)
            self._fresh[key] = None
            self._begin()
        else:
            item.work = work
            item.again = item.task is not None

    def drop(self, key: str) -> None:
        """End an item, and forget it once it has ended."""
        item = self._items.get(key)
        if item is not None and item.task is not None:
            item.again, item.dropped = False, True
            item.task.cancel()
        elif item is not None:
            self._forget(key)

    def knows(self, key: str) -> bool:
        """Whether an item waits for its place or its next try, or runs."""
        return key in self._items

    def known(self) -> set[str]:
        """The items that wait for their place or their next try, or run."""
        return set(self._items)

    def begun(self) -> set[str]:
        """The items that run, or are about to."""
        return self._running | self._fresh.keys() | self._due.keys()

    def status(self) -> Status:
        failing = {key: item.failure for key, item in self._items.items() if item.failure and item.failure.shown}
        causes = [*failing.values(), *(cause for cause in (self._blind, self._cut) if cause and cause.shown)]
        since = [cause.since for cause in causes]
        error = self._last_error
        if self._lease is not None and not self._lease.held and self._lease.failing_since is not None:
            since.append(self._lease.failing_since)
            error = self._lease.error
        return Status(
            name=self.name,
            period=self._period,
            works=self._may_work(),
            everywhere=self._everywhere,
            runs=self._runs,
            last_run=self._last_run,
            last_success=self._last_success,
            last_error=error,
            failing_since=min(since, default=None),
            running=len(self._running),
            backing_off=sum(item.timer is not None for item in self._items.values()),
            items=tuple(list(failing)[:NAMED]),
        )

    def _begin(self) -> None:
        """Begin what waits, while there are places."""
        while self._may_work() and len(self._running) < self._at_a_time and (key := self._next()) is not None:
            item = self._items[key]
            self._running.add(key)
            self._retrying += item.failure is not None
            item.task = asyncio.create_task(self._run(item), name=f"{self.name} {key}")
            item.task.add_done_callback(partial(self._done, key, item))

    def _may_work(self) -> bool:
        return not self._closed and (self._lease is None or self._lease.held)

    def _next(self) -> str | None:
        """The key whose turn it is; those that failed before and the others take turns."""
        may_retry = bool(self._due) and self._retrying < max(1, self._at_a_time // 2)
        self._retried_last = may_retry and not (self._fresh and self._retried_last)
        waiting = self._due if self._retried_last else self._fresh
        key = next(iter(waiting), None)
        if key is not None:
            del waiting[key]
        return key

    async def _run(self, item: Item) -> None:
        async with limit(self._item_seconds):
            await item.work()
        heed_cancellation()

    def _done(self, key: str, item: Item, task: asyncio.Task[None]) -> None:
        item.task = None
        self._running.discard(key)
        self._retrying -= item.failure is not None
        error = Broken("it was cancelled from within") if task.cancelled() else task.exception()
        again, item.again = item.again, False
        dropped, item.dropped = item.dropped, False
        if self._closed or (dropped and not again):
            self._forget(key)
        elif error is not None and not dropped:
            failure = self._failed(key, item.failure, error)
            self._keep(item, failure)
            item.timer = asyncio.get_running_loop().call_later(failure.pause, self._is_due, key, item)
            self._count(error)
        else:
            self._keep(item, None)
            if not dropped:
                self._away, self._cut = 0, None
                self._well()
            if again:
                self._fresh[key] = None
            else:
                self._forget(key)
        self._begin()
        self._ended()

    def _keep(self, item: Item, failure: Failure | None) -> None:
        self._failing += (failure is not None) - (item.failure is not None)
        item.failure = failure

    def _is_due(self, key: str, item: Item) -> None:
        item.timer = None
        self._due[key] = None
        self._begin()

    def _forget(self, key: str) -> None:
        item = self._items.pop(key)
        self._keep(item, None)
        self._fresh.pop(key, None)
        self._due.pop(key, None)
        if item.timer is not None:
            item.timer.cancel()

    # ── failure ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _failed(self, key: str, before: Failure | None, error: BaseException) -> Failure:
        failure = failed(before, error)
        if failure.shown:
            self._last_error = failure.error
            if before is None or not before.shown or before.error != failure.error:  # once, not once per try
                told = log.bind(manager=self.name, item=key, error=failure.error, again_in_s=round(failure.pause, 1))
                if failure.passing:
                    told.warning("manager waits")
                else:
                    told.error("manager failed; trying again", exc_info=error)
        return failure

    def _count(self, error: BaseException) -> None:
        """End the round where the log is away: what has not begun would find the same."""
        self._away = self._away + 1 if isinstance(error, AWAY) else 0
        if self._away >= MOST_AWAY:
            self._away = 0
            for key in list(self._fresh):
                self._forget(key)
            self._cut = failed(self._cut, error)
            self._pause(self._cut)

    def _pause(self, cause: Failure) -> None:
        """Look at everything, but not before the pause is over."""
        self._not_before = asyncio.get_running_loop().time() + cause.pause
        if self._watch is not None:
            self._watch.ring(everything=True)

    def _well(self) -> None:
        if self._blind is None and self._cut is None and not self._failing:
            self._last_success = datetime.now(UTC)

    async def _woken(self) -> Changes:
        """Wait for a change or the next look; after a failure, for its pause as well."""
        if self._watch is None:
            assert self._period is not None
            await asyncio.sleep(self._period if self._runs else 0.0)
            changes = Changes(frozenset(), everything=False)
        else:
            try:
                async with asyncio.timeout(self._period):
                    changes = await self._watch.next()
            except TimeoutError:
                changes = Changes(frozenset(), everything=False)
        pause = self._not_before - asyncio.get_running_loop().time()
        if pause > 0:
            await asyncio.sleep(pause)
        return changes
