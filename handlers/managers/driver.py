"""The driver runs every manager: it decides when to look and what to do after a failure, and has the status.

A manager is a function that looks at the changes and calls `driver.submit(key, work)` for each item that needs an
action. The rules of the driver:

- A manager is woken by a change of the world (a `Watch`), and every `period` seconds.
- A look does not wait for the items. Up to `at_a_time` items run at the same time, in the order of the calls. Each key
  runs once at a time: if it is requested again while it runs, it runs once more, with the latest work. The work reads
  the world again, and may find that there is nothing to do.
- An item that fails is tried again after a pause of its own, which grows up to a limit and has jitter. Items that have
  failed take at most half of the slots, so that hanging ones leave slots for the others.
- Items may belong to lanes, for example to a node. Items of one lane take at most `per_lane` slots; further ones wait,
  and leave the slots to other lanes.
- An error that ends by itself (the log is unavailable, another process appended first) is logged in one line. Any other
  error is a bug, or an error from outside that was not mapped: it is logged once, with its traceback. The driver and
  the other items go on.
- If several items in a row find the log unavailable, the round ends: items that have not begun are dropped, and the
  manager looks at everything again after a pause.
- Of several handlers processes, one has the lease of the managers (`lease.py`). A manager runs only there, unless it
  runs `everywhere`. A process that loses the lease cancels all items; a process that gets it looks at everything.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from handlers.managers.failure import AWAY, Broken, Failure, failed, limit
from handlers.managers.lanes import Lanes
from handlers.managers.lease import Lease
from handlers.world.watch import Changes, Watch
from runtime import logs
from runtime.tasks.tasks import end, heed_cancellation

log = logs.get(__name__)

#: Maximum number of items that run at a time, by default.
AT_A_TIME = 16
#: Maximum number of seconds of one item, by default; maximum number of seconds of one look.
ITEM_SECONDS, LOOK_SECONDS = 30.0, 300.0
#: Number of items in a row that find the log unavailable, after which the round ends.
MOST_AWAY = 3
#: Maximum number of items that the status names.
NAMED = 20

Work = Callable[[], Awaitable[Any]]


@dataclass(slots=True)
class Item:
    """The work of a key. It waits for a slot, runs (`task`), or waits for its next try (`timer`)."""

    work: Work
    lane: str | None = None
    again: bool = False
    dropped: bool = False
    failure: Failure | None = None
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a manager. `items`: some of those that fail."""

    name: str
    period: float | None
    #: whether it runs in this process now; and whether it runs in every process
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
    """Runs one manager. `look` is called with the changes of `watch`, and every `period` seconds.

    `item_seconds`: how long an item may take; None if its work has limits itself. `ended` is called after each item.
    `everywhere`: it runs in every handlers process, also without the lease. `per_lane`: maximum number of items of one
    lane that run at a time.
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
        per_lane: int = AT_A_TIME,
    ) -> None:
        assert watch is not None or period is not None, "it would never be woken"
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
        #: the keys that wait for a slot: for the first time, and after a failure. The first key of a plain dict takes
        #: the longer to find the more were removed before it.
        self._fresh: OrderedDict[str, None] = OrderedDict()
        self._due: OrderedDict[str, None] = OrderedDict()
        self._running: set[str] = set()
        self._lanes = Lanes(per_lane)
        self._retrying = 0
        self._failing = 0
        self._retried_last = False
        self._closed = False
        #: why the last look failed, and why the last round was ended; when to look again at the earliest
        self._look_failure: Failure | None = None
        self._round_failure: Failure | None = None
        self._not_before = 0.0
        self._away = 0
        self._runs = 0
        self._last_run: datetime | None = None
        self._last_success: datetime | None = None
        self._last_error: str | None = None

    async def run(self, lease: Lease | None = None) -> None:
        """Run the manager, for ever. With a lease, only while this process has it."""
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
            if self._lease is not None and not self._lease.held:  # expired, and `_while_held` has not noticed yet
                await self._lease.begin()
                changes = Changes(frozenset(), everything=True)
            await self.round(changes)

    async def _while_held(self, lease: Lease) -> None:
        """Run rounds until the lease is lost."""
        tasks = [asyncio.create_task(self._rounds(), name=self.name), asyncio.create_task(lease.lost())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(tasks)
        if not tasks[0].cancelled():
            tasks[0].result()

    async def close(self) -> None:
        """Cancel all items, and begin no more. The next round looks at everything."""
        self._closed = True
        await end([item.task for item in self._items.values() if item.task is not None])
        for key, item in list(self._items.items()):
            if item.task is not None:  # it has ended, and its callback comes later
                self._done(key, item, item.task)
            else:
                self._forget(key)
        self._look_failure = self._round_failure = None
        self._away, self._not_before = 0, 0.0
        if self._watch is not None:
            self._watch.ring(everything=True)

    async def round(self, changes: Changes) -> None:
        """One look, which begins items. If it fails, the next look comes after a pause; nothing is raised."""
        self._runs += 1
        self._last_run = datetime.now(UTC)
        try:
            async with limit(LOOK_SECONDS):
                await self._look(changes, self)
            heed_cancellation()
        except Exception as error:
            self._look_failure = self._failed("look", self._look_failure, error)
            self._pause(self._look_failure)
        else:
            self._look_failure = None
            if not self._items:
                self._round_failure = None
                self._note_success()

    # ── items ───────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, key: str, work: Work, lane: str | None = None) -> None:
        """Run the work of a key as soon as it has a slot; after its pause, if it failed before.

        `lane`: that of a new item.
        """
        item = self._items.get(key)
        if item is None:
            self._items[key] = Item(work, lane)
            self._fresh[key] = None
            self._begin()
        else:
            item.work = work
            item.again = item.task is not None

    def drop(self, key: str) -> None:
        """Cancel an item, and remove it once it has ended."""
        item = self._items.get(key)
        if item is not None and item.task is not None:
            item.again, item.dropped = False, True
            item.task.cancel()
        elif item is not None:
            self._forget(key)

    def knows(self, key: str) -> bool:
        """Whether an item waits for a slot or its next try, or runs."""
        return key in self._items

    def known(self) -> set[str]:
        """The keys that wait for a slot or their next try, or run."""
        return set(self._items)

    def begun(self) -> set[str]:
        """The keys that run, or wait for a slot."""
        return self._running | self._fresh.keys() | self._due.keys() | set(self._lanes.waiting())

    def status(self) -> Status:
        failing = {key: item.failure for key, item in self._items.items() if item.failure and item.failure.shown}
        own = (self._look_failure, self._round_failure)
        since = [each.since for each in (*failing.values(), *own) if each is not None and each.shown]
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
        """Start waiting items while there are free slots."""
        while self._may_work() and len(self._running) < self._at_a_time and (key := self._next()) is not None:
            item = self._items[key]
            if not self._lanes.enter(item.lane, key):
                continue
            self._running.add(key)
            self._retrying += item.failure is not None
            item.task = asyncio.create_task(self._run(item), name=f"{self.name} {key}")
            item.task.add_done_callback(partial(self._done, key, item))

    def _may_work(self) -> bool:
        return not self._closed and (self._lease is None or self._lease.held)

    def _next(self) -> str | None:
        """The next key; those that failed before and the others alternate."""
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
        if item.task is not task:
            return  # `close` has done this before
        item.task = None
        self._running.discard(key)
        if (behind := self._lanes.leave(item.lane)) is not None:
            (self._fresh if self._items[behind].failure is None else self._due)[behind] = None
        self._retrying -= item.failure is not None
        error = Broken("it was cancelled by its own code") if task.cancelled() else task.exception()
        again, item.again = item.again, False
        dropped, item.dropped = item.dropped, False
        if self._closed or (dropped and not again):
            self._forget(key)
        elif error is not None and not dropped:
            failure = self._failed(key, item.failure, error)
            self._set_failure(item, failure)
            item.timer = asyncio.get_running_loop().call_later(failure.pause, self._retry, key, item)
            self._count(error)
        else:
            self._set_failure(item, None)
            if not dropped:
                self._away, self._round_failure = 0, None
                self._note_success()
            if again:
                self._fresh[key] = None
            else:
                self._forget(key)
        self._begin()
        self._ended()

    def _set_failure(self, item: Item, failure: Failure | None) -> None:
        self._failing += (failure is not None) - (item.failure is not None)
        item.failure = failure

    def _retry(self, key: str, item: Item) -> None:
        item.timer = None
        self._due[key] = None
        self._begin()

    def _forget(self, key: str) -> None:
        item = self._items.pop(key)
        self._set_failure(item, None)
        self._fresh.pop(key, None)
        self._due.pop(key, None)
        self._lanes.remove(item.lane, key)
        if item.timer is not None:
            item.timer.cancel()

    # ── failure ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _failed(self, key: str, before: Failure | None, error: BaseException) -> Failure:
        failure = failed(before, error)
        if failure.shown:
            self._last_error = failure.error
            if before is None or not before.shown or before.error != failure.error:  # once, not for each try
                bound = log.bind(manager=self.name, item=key, error=failure.error, again_in_s=round(failure.pause, 1))
                if failure.passing:
                    bound.warning("manager waits")
                else:
                    bound.error("manager failed; trying again", exc_info=error)
        return failure

    def _count(self, error: BaseException) -> None:
        """End the round if the log is unavailable: items that have not begun would fail in the same way."""
        self._away = self._away + 1 if isinstance(error, AWAY) else 0
        if self._away >= MOST_AWAY:
            self._away = 0
            behind = [key for key in self._lanes.waiting() if self._items[key].failure is None]
            for key in [*self._fresh, *behind]:
                self._forget(key)
            self._round_failure = failed(self._round_failure, error)
            self._pause(self._round_failure)

    def _pause(self, cause: Failure) -> None:
        """Look at everything again, after the failure's pause."""
        self._not_before = asyncio.get_running_loop().time() + cause.pause
        if self._watch is not None:
            self._watch.ring(everything=True)

    def _note_success(self) -> None:
        if self._look_failure is None and self._round_failure is None and not self._failing:
            self._last_success = datetime.now(UTC)

    async def _woken(self) -> Changes:
        """Wait for a change or the period; after a failure, also for its pause."""
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
