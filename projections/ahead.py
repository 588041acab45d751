"""Reads the log ahead of the transaction in progress, and collects large batches while the read models are behind.

While Postgres works on one batch, the messages of the next one are received and judged. In a large batch each row is
written once for all the messages that change it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from projections.books import Judged
from runtime.tasks.tasks import happens

MOST = 8192
"""The usual maximum number of messages in one batch."""
MOST_BYTES = 64 * 1024**2
"""Bytes of bodies from which on a batch is complete, however few messages it has."""
#: Seconds without a message after which a batch is complete, even if the log should have more.
QUIET = 1.0


class Ahead:
    """The messages of the log in batches. `goal`: batches up to this position are filled.

    `most`: the maximum number of messages in such a batch (None: MOST); as many more are read ahead.
    """

    def __init__(self, source: AsyncGenerator[Sequence[Judged], None], goal: int, most: int | None = None) -> None:
        self._source = source
        self._goal = goal
        self._most = most or MOST
        self._waiting: list[Judged] = []
        self._bytes = 0
        self._arrived, self._taken = asyncio.Event(), asyncio.Event()

    async def batches(self) -> AsyncGenerator[Sequence[Judged], None]:
        """Batches of at least one message, in the order of the log. It ends, or raises, as the source does."""
        async with self._reading() as reader:
            while self._waiting or not reader.done():
                if not self._waiting:
                    await self._arrived.wait()
                elif self._complete() or reader.done() or not await happens(self._arrived, QUIET):
                    most = self._most if self._waiting[0][0].position <= self._goal else MOST
                    batch, self._waiting = self._waiting[:most], self._waiting[most:]
                    self._bytes = bytes_of(self._waiting)
                    self._taken.set()
                    yield batch
                self._arrived.clear()
            await reader

    def _complete(self) -> bool:
        return self._is_full() or self._waiting[-1][0].position >= self._goal

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._most or self._bytes >= MOST_BYTES

    async def _read(self) -> None:
        try:
            async for batch in self._source:
                self._waiting += batch
                self._bytes += bytes_of(batch)
                self._arrived.set()
                while self._is_full():
                    self._taken.clear()
                    await self._taken.wait()
        finally:
            self._arrived.set()

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator["asyncio.Task[None]"]:
        task = asyncio.create_task(self._read(), name="read ahead")
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._source.aclose()


def bytes_of(messages: Sequence[Judged]) -> int:
    return sum([len(recorded.body) for recorded, _ in messages])
