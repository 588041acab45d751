"""What a process refuses to guests, for auditors (`nebula refusals`).

Equal refusals become one record with their count, so that a guest that tries very often hides nobody else.
"""

import asyncio
from collections.abc import Hashable
from datetime import UTC, datetime
from typing import Generic, Protocol, Self, TypeVar

from nats.aio.client import Client
from nats.errors import Error as NatsError

from runtime import logs

log = logs.get(__name__)

#: Seconds between two records of equal refusals.
EVERY = 10.0
#: Different records each time. More are counted in one.
MOST = 20


class Entry(Hashable, Protocol):
    """What was refused."""

    def others(self) -> Self: ...

    def record(self, at: datetime, count: int) -> bytes: ...


E = TypeVar("E", bound=Entry)


class RefusalRecords(Generic[E]):
    """Publishes on one subject of the stream of refusals."""

    def __init__(self, nc: Client, subject: str) -> None:
        self._nc = nc
        self._subject = subject
        self._waiting: dict[E, int] = {}

    def note(self, entry: E, count: int = 1) -> None:
        """Count a refusal."""
        if entry not in self._waiting and len(self._waiting) >= MOST:
            entry = entry.others()
        self._waiting[entry] = self._waiting.get(entry, 0) + count

    async def run(self) -> None:
        """Publish what was noted, for ever."""
        while True:
            await self.publish()
            await asyncio.sleep(EVERY)

    async def publish(self) -> None:
        """Publish what was noted since the last time."""
        waiting, self._waiting = self._waiting, {}
        for entry, count in waiting.items():
            try:
                await self._nc.publish(self._subject, entry.record(datetime.now(UTC), count))
            except (NatsError, OSError) as error:
                log.warning("refusals are not kept for auditors", error=repr(error), refusals=len(waiting))
                return
