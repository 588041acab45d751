"""Waits for the ends of operations: one query for all that somebody waits for, when the read models have moved."""

import asyncio
import contextlib
from collections.abc import Iterator

from projections import operation_rows
from projections.database import Pool, ReadModelsUnavailable
from projections.operation_rows import OperationView
from projections.position import Position
from runtime import logs

log = logs.get(__name__)

#: Seconds between two queries: the first, and the largest while no operation ends. For each operation that is waited
#: for, a query comes later by SHARE: with many of them, one query serves several of their ends.
FIRST_PAUSE, LAST_PAUSE, GROWTH, SHARE = 0.002, 0.05, 1.3, 0.0001
#: Seconds after which it looks whether the gateway stops.
LOOK = 0.5

Ended = tuple[OperationView, int]
"""An operation that has ended, and the log position of its row."""
Waiter = asyncio.Future[Ended | None]
"""Somebody who waits for an operation. The result is None if the gateway stops."""


class Endings:
    """The operations that callers wait for."""

    def __init__(self, pool: Pool, position: Position, stop: asyncio.Event) -> None:
        self._pool = pool
        self._position = position
        self._stop = stop
        self._waiters: dict[str, set[Waiter]] = {}
        self._pause = FIRST_PAUSE
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def waiting(self, operation: str) -> Iterator[Waiter]:
        """Wait for the end of an operation. An end that is written from now on is noticed.

        The result raises ReadModelsUnavailable.
        """
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(operation, set()).add(waiter)
        self._pause = FIRST_PAUSE
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(), name="ends of operations")
        try:
            yield waiter
        finally:
            if not waiter.cancel() and not waiter.cancelled():
                waiter.exception()  # retrieve it, so that asyncio does not log it
            of_operation = self._waiters.get(operation, set())
            of_operation.discard(waiter)
            if not of_operation:
                self._waiters.pop(operation, None)

    async def _watch(self) -> None:
        """Ask for the ends until nobody waits any more."""
        while self._waiters and not self._stop.is_set():
            seen = self._position.value
            try:
                found, position = await operation_rows.ended(self._pool, list(self._waiters))
            except ReadModelsUnavailable as error:
                self._fail(error)
                return
            except Exception as error:
                log.exception("the ends of operations cannot be queried")
                self._fail(error)
                return
            for operation in found:
                self._pause = FIRST_PAUSE
                for waiter in self._waiters.pop(operation["id"], ()):
                    if not waiter.done():
                        waiter.set_result((operation, position))
            await asyncio.sleep(self._pause + SHARE * len(self._waiters))
            self._pause = min(self._pause * GROWTH, LAST_PAUSE)
            while self._waiters and not self._stop.is_set() and not await self._position.reach(seen + 1, LOOK):
                pass
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)
