"""Readers that follow the log through all the kills, and remember what they saw."""

import asyncio
import random
from contextlib import aclosing

from nats.aio.client import Client

from eventstore.log.follow import follow
from runtime.tasks.tasks import end
from tests.chaos.ledger import Entry, entry
from tests.eventstore.log import matches


class Feed:
    """One reader. With `chance` it leaves now and then, and comes back behind the last event that it saw."""

    def __init__(
        self, name: str, nc: Client, filters: list[str] | None = None, chance: random.Random | None = None
    ) -> None:
        self.name = name
        self.saw: list[Entry] = []
        self._filters = filters
        self._chance = chance
        self._task = asyncio.create_task(self._read(nc))

    def wants(self, subject: str) -> bool:
        return self._filters is None or any(matches(filter_, subject) for filter_ in self._filters)

    async def _read(self, nc: Client) -> None:
        while True:
            left = self._chance.randint(1, 500) if self._chance else None
            async with aclosing(
                follow(nc, self.saw[-1].position if self.saw else 0, self._filters, event_keys=None)
            ) as batches:
                async for batch in batches:
                    self.saw += map(entry, batch)
                    if left is not None and (left := left - len(batch)) <= 0:
                        break

    async def reach(self, position: int, seconds: float) -> None:
        """Wait until it has come so far; for so long at most, since a feed that stalls is for the check to tell."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not (self.saw and self.saw[-1].position >= position) and loop.time() < deadline:
            if self._task.done():
                await self._task
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        await end([self._task])
