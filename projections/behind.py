"""Reads the log while the read models are far behind: long ranges as bytes, which another process judges."""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from nats.aio.client import Client
from nats.errors import Error as NatsError

from eventstore.log.follow import follow
from eventstore.log.macs import EventKeys
from eventstore.log.store import Unavailable
from projections import preparing
from projections.ahead import Ahead
from projections.books import Judged, judged
from projections.prepared import Item
from runtime import logs, subjects
from runtime.bus.bulk import Bytes, get
from runtime.bus.quick_client import QuickClient
from runtime.tasks.patience import CannotRun
from runtime.tasks.tasks import end
from runtime.tasks.workers import Worker

log = logs.get(__name__)

SIZE = 2048
"""Positions of a range."""
WORTH_IT = 50_000
"""Messages from which on other processes are started: each costs half a second of a processor."""
BATCH = 16_384
"""Messages of a batch then: each row is written less often, and a transaction takes about a second."""
MOST_WORKERS = 3
_SECONDS = 5.0
"""Seconds without a message after which the log is read in the usual way."""


def ahead(nc: Client, after: int, goal: int, event_keys: EventKeys | None) -> Ahead:
    """The messages after a position, for ever, in batches. They are large up to `goal`, if there are many."""
    return Ahead(messages(nc, after, goal, event_keys), goal, BATCH if goal - after >= WORTH_IT else None)


async def messages(
    nc: Client, after: int, goal: int, event_keys: EventKeys | None
) -> AsyncGenerator[Sequence[Judged], None]:
    """The messages after a position, for ever. Up to `goal` they are read in long ranges, if there are many.

    As `follow`: in the order of the log, with no gap and no repeat. It ends and raises as `follow`.
    """
    if isinstance(nc, QuickClient) and goal - after >= WORTH_IT:
        async with contextlib.aclosing(_quickly(nc, after, goal, event_keys)) as ranges:
            async for found in ranges:
                yield found
                after = found[-1][0].position
    async with contextlib.aclosing(follow(nc, after, event_keys=event_keys)) as batches:
        async for batch in batches:
            yield [judged(recorded) for recorded in batch]


async def _quickly(
    nc: QuickClient, after: int, goal: int, event_keys: EventKeys | None
) -> AsyncGenerator[Sequence[Judged], None]:
    """The messages up to `goal`, or fewer if anything is unusual."""
    async with Ranges(nc, goal, event_keys) as ranges:
        starts = iter(range(after + 1, goal + 1, SIZE))
        waiting = deque[asyncio.Task[list[Judged]]]()
        try:
            while ranges.at_once:
                while len(waiting) < ranges.at_once and (first := next(starts, None)) is not None:
                    waiting.append(asyncio.create_task(ranges.read(first), name=f"range from {first}"))
                found = await waiting.popleft() if waiting else []
                if not found:
                    return
                yield found
        finally:
            await end(waiting)


class Ranges:
    """Reads ranges of the log and judges them, several at a time. Use it as a context manager."""

    def __init__(self, nc: QuickClient, goal: int, event_keys: EventKeys | None) -> None:
        self._nc = nc
        self._goal = goal
        self._event_keys = event_keys
        self._workers: list[Worker] = []
        self._idle = asyncio.Queue[Worker]()
        self._starting = set[asyncio.Task[None]]()

    @property
    def at_once(self) -> int:
        """How many ranges to read at a time; 0 if there is no other process, so that this way is not faster."""
        return 2 * len(self._workers) + 1 if self._workers else 0

    async def __aenter__(self) -> "Ranges":
        try:
            orders = preparing.orders_of(self._event_keys)
            for _ in range(min(MOST_WORKERS, max(1, len(os.sched_getaffinity(0)) - 1)) if orders else 0):
                worker = await Worker.start(preparing.__name__, orders)
                self._workers.append(worker)
                starting = asyncio.create_task(self._started(worker), name=f"start of {worker.pid}")
                self._starting.add(starting)
                starting.add_done_callback(self._starting.discard)
        except (OSError, Unavailable, CannotRun) as error:  # `follow` waits for keys, and says what is wrong with them
            log.info("the log is read in one process", error=str(error))
        return self

    async def _started(self, worker: Worker) -> None:
        with contextlib.suppress(OSError, EOFError):
            await worker.ask([])
        self._idle.put_nowait(worker)

    async def __aexit__(self, *_: object) -> None:
        try:
            await end(list(self._starting))
        finally:
            for worker in self._workers:
                await worker.stop()

    async def read(self, first: int) -> list[Judged]:
        """The messages of a range. An empty list if it is not complete: there is a gap, or a server lags behind."""
        last = min(first + SIZE - 1, self._goal)
        found = await self._bytes(first, last)
        try:
            known: list[Item | None] = await self._prepared(found)
            judged_ones = [preparing.opened(*each, self._event_keys) for each in zip(found, known, strict=True)]
        except (KeyError, ValueError):  # not a message of a stream
            return []
        positions = [recorded.position for recorded, _ in judged_ones]
        return judged_ones if positions == list(range(first, last + 1)) else []

    async def _prepared(self, found: Sequence[Bytes]) -> list[Item | None]:
        if self._starting and self._idle.empty():
            return [None] * len(found)  # this process judges them, and does not wait for the others
        worker = await self._idle.get()
        try:
            prepared: list[Item | None] = await worker.ask(found)
        except (OSError, EOFError):  # it was killed
            return [None] * len(found)
        finally:
            self._idle.put_nowait(worker)
        return prepared

    async def _bytes(self, first: int, last: int) -> list[Bytes]:
        """The messages of a range, or fewer if something prevents that."""
        found: list[Bytes] = []
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            while (count := last + 1 - first - len(found)) > 0:
                more = await get(self._nc, subjects.EVENTS, first + len(found), count, wait=_SECONDS)
                if not more:
                    break
                found += more
        return found
