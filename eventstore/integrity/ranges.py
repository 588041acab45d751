"""Reads ranges of the log and checks them, several at a time: a large log by several processes."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from nats.errors import Error as NatsError

from eventstore.integrity.checking import Orders, Worker
from eventstore.integrity.sound import Checker, Sound
from eventstore.log.keyring import Keyring
from eventstore.log.macs import EventKeys, Keys
from runtime import subjects
from runtime.bus.bulk import Bytes, get
from runtime.bus.quick_client import QuickClient
from runtime.tasks.tasks import end

SIZE = 2048
"""Positions of a range."""
WORTH_IT = 50_000
"""Positions from which on other processes are started: each costs half a second of a processor."""
MOST_WORKERS = 8
_SECONDS = 5.0


class Ranges:
    """Checks ranges of one log. Use it as a context manager."""

    def __init__(self, nc: QuickClient, event_keys: EventKeys | None, foreign: Sequence[str], positions: int) -> None:
        """`positions`: about how many will be checked."""
        self.size = SIZE
        self._nc = nc
        self._checker = Checker(event_keys, foreign)
        self._orders = orders_of(event_keys, foreign) if positions >= WORTH_IT else None
        self._workers: list[Worker] = []
        self._idle = asyncio.Queue[Worker]()

    async def __aenter__(self) -> "Ranges":
        if self._orders is not None:
            for _ in range(min(MOST_WORKERS, len(os.sched_getaffinity(0)))):
                worker = await Worker.start(self._orders)
                self._workers.append(worker)
                self._idle.put_nowait(worker)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            await worker.stop()

    async def sound(self, after: int, last: int) -> AsyncIterator[Sound]:
        """The ranges after a position up to `last`, in order, as long as each is sound, and complete."""
        at_once = 2 * len(self._workers) + 1
        waiting = deque[asyncio.Task[Sound | None]]()
        starts = iter(range(after + 1, last + 1, self.size))
        try:
            while True:
                while len(waiting) < at_once and (first := next(starts, None)) is not None:
                    waiting.append(asyncio.create_task(self._checked(first, min(self.size, last + 1 - first))))
                found = await waiting.popleft() if waiting else None
                if found is None:
                    return
                yield found
        finally:
            await end(waiting)

    async def _checked(self, first: int, count: int) -> Sound | None:
        messages = await self._read(first, count)
        if len(messages) != count:
            return None
        if not self._workers:
            return self._checker.check(first, messages)
        worker = await self._idle.get()
        try:
            return await worker.check(first, messages)
        except (OSError, EOFError):  # it was killed
            return self._checker.check(first, messages)
        finally:
            self._idle.put_nowait(worker)

    async def _read(self, first: int, count: int) -> list[Bytes]:
        """The messages of a range, or fewer if something prevents that."""
        messages: list[Bytes] = []
        with suppress(NatsError, OSError, TimeoutError):
            while len(messages) < count:
                found = await get(
                    self._nc, subjects.EVENTS, first + len(messages), count - len(messages), wait=_SECONDS
                )
                if not found:
                    break
                messages += found
        return messages


def orders_of(event_keys: EventKeys | None, foreign: Sequence[str]) -> Orders | None:
    """The orders for other processes; None if their keys cannot be given to one."""
    if isinstance(event_keys, Keyring):
        event_keys = event_keys.load()
    return Orders.of(event_keys, foreign) if event_keys is None or isinstance(event_keys, Keys) else None
