"""One driver runs every background loop: when to look, what to do after a failure, and what operators can see of it.

A manager is a function that looks at what has changed and calls `driver.each(key, work)` for each item that needs
something. The rules are here:

- A manager is woken by a change of the world (a `Watch`) and every `period` seconds.
- An item that fails is tried again after a pause of its own, which grows and differs, up to a bound. Meanwhile all
  other items go on. Its work is called again as it is, so it has to look at the world anew and may find nothing to do.
- An error that passes by itself (the log is away, somebody else appended first) is one line. Any other error is a bug,
  or something from outside that nobody mapped: it is logged with its traceback, and ends nothing.
- When several items in a row find the log away, the round ends, and everything is looked at again after a pause.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from eventstore.store import Conflict, Unavailable
from eventstore.vault import VaultUnavailable
from handlers.world import Changes, Watch
from runtime import logs
from runtime.tasks import heed_cancellation

log = logs.get(__name__)

#: Seconds until an item is tried again: at first, and at most, after what passes by itself and after any other error.
FIRST, LAST_PASSING, LAST = 0.5, 5.0, 60.0
#: The same after somebody else appended first: the winner's event is on its way here.
FIRST_CONFLICT = 0.02
#: Seconds that one item may take.
ITEM_SECONDS = 30.0
#: Items in a row that find the log away before the round ends.
AWAY = 3
#: Items that are named in the status.
NAMED = 20

PASSING = (Unavailable, VaultUnavailable, Conflict, TimeoutError)

Work = Callable[[], Awaitable[Any]]


@dataclass
class Failure:
    """An item, or a whole round, that failed. `due` is when it is tried again, on the loop's clock."""

    work: Work
    times: int
    since: datetime
    error: str
    due: float


@dataclass(frozen=True, slots=True)
class Status:
    """What operators can read of a manager."""

    name: str
    period: float | None
    runs: int
    last_run: datetime | None
    last_success: datetime | None
    last_error: str | None
    failing_since: datetime | None
    backing_off: int
    items: tuple[str, ...]


class Driver:
    """Runs one manager. `look` is called with what has changed; `watch` and `period` say when."""

    def __init__(
        self,
        name: str,
        look: Callable[[Changes, "Driver"], Awaitable[None]],
        *,
        watch: Watch | None = None,
        period: float | None = None,
    ) -> None:
        assert watch is not None or period is not None, "nothing would ever wake it"
        self.name = name
        self._look = look
        self._watch = watch
        self._period = period
        self._failures: dict[str, Failure] = {}
        self._round: Failure | None = None
        self._away = 0
        self._runs = 0
        self._last_run: datetime | None = None
        self._last_success: datetime | None = None
        self._last_error: str | None = None

    async def run(self) -> None:
        """Never returns."""
        while True:
            changes = await self._woken()
            await self.round(changes)

    async def round(self, changes: Changes) -> None:
        """One look, and the items that are due again. What fails is backed off from, and never raised."""
        clock = asyncio.get_running_loop().time
        self._runs += 1
        self._last_run = datetime.now(UTC)
        self._away = 0

        async def work() -> None:
            for key, failure in list(self._failures.items()):
                if failure.due <= clock():
                    await self.each(key, failure.work)
            await self._look(changes, self)

        try:
            await work()
            heed_cancellation()
        except Exception as error:
            self._round = self._failed("round", self._round, work, error)
        else:
            self._round = None
            if not self._failures:
                self._last_success = datetime.now(UTC)

    async def each(self, key: str, work: Work) -> bool:
        """Do what one item needs; False when it failed, now or lately. Raises Unavailable when the log is away."""
        before = self._failures.get(key)
        if before is not None and before.due > asyncio.get_running_loop().time():
            before.work = work
            return False
        try:
            async with asyncio.timeout(ITEM_SECONDS):
                await work()
            heed_cancellation()
        except Exception as error:
            self._failures[key] = self._failed(key, before, work, error)
            self._away = self._away + 1 if isinstance(error, Unavailable | VaultUnavailable) else 0
            if self._away >= AWAY:
                raise
            return False
        self._away = 0
        self._failures.pop(key, None)
        return True

    def backs_off(self, key: str) -> bool:
        """Whether an item failed lately and is not due yet."""
        failure = self._failures.get(key)
        return failure is not None and failure.due > asyncio.get_running_loop().time()

    def status(self) -> Status:
        failing = [*self._failures.values(), *([self._round] if self._round else [])]
        return Status(
            name=self.name,
            period=self._period,
            runs=self._runs,
            last_run=self._last_run,
            last_success=self._last_success,
            last_error=self._last_error,
            failing_since=min((failure.since for failure in failing), default=None),
            backing_off=len(self._failures),
            items=tuple(list(self._failures)[:NAMED]),
        )

    def _failed(self, key: str, before: Failure | None, work: Work, error: Exception) -> Failure:
        times = before.times + 1 if before else 1
        passing = isinstance(error, PASSING)
        first = FIRST_CONFLICT if isinstance(error, Conflict) else FIRST
        pause = min(first * 2 ** min(times - 1, 20), LAST_PASSING if passing else LAST)
        pause *= random.uniform(0.5, 1.0)  # noqa: S311  (no secret)
        text = f"{type(error).__name__}: {error}"[:300]
        if not (isinstance(error, Conflict) and times < AWAY):
            self._last_error = text
            if before is None or before.error != text:  # once, not once per try
                told = log.bind(manager=self.name, item=key, error=text, again_in_s=round(pause, 1))
                if passing:
                    told.warning("manager waits")
                else:
                    told.error("manager failed; trying again", exc_info=error)
        since = before.since if before else datetime.now(UTC)
        return Failure(work, times, since, text, asyncio.get_running_loop().time() + pause)

    async def _woken(self) -> Changes:
        """Wait for a change, the next look, or an item that is due again; after a failed round, for its pause."""
        clock = asyncio.get_running_loop().time
        if self._round is not None:
            await asyncio.sleep(max(0.0, self._round.due - clock()))
            return Changes(frozenset(), everything=True)
        pauses = [failure.due - clock() for failure in self._failures.values()]
        if self._period is not None:
            pauses.append(self._period)
        pause = max(0.0, min(pauses)) if pauses else None
        if self._watch is None:
            await asyncio.sleep(pause or 0.0 if self._runs else 0.0)
            return Changes(frozenset(), everything=False)
        try:
            async with asyncio.timeout(pause):
                return await self._watch.next()
        except TimeoutError:
            return Changes(frozenset(), everything=False)
