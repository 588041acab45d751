"""What was heard of the log and is not folded yet."""

import asyncio
from collections import deque

from eventstore.log.envelope import Recorded

#: Messages from which on whoever hears waits, and that are taken at once.
MOST, MOST_TAKEN = 10_000, 256


class Backlog:
    """Messages in the order of the log, from one who hears to one who folds."""

    def __init__(self) -> None:
        self._messages: deque[Recorded] = deque()
        self._came = asyncio.Event()
        self._room = asyncio.Event()

    def full(self) -> bool:
        return len(self._messages) >= MOST

    async def put(self, heard: list[Recorded]) -> None:
        """Add what was heard, once there is room."""
        while self.full():
            self._room.clear()
            await self._room.wait()
        self._messages.extend(heard)
        self._came.set()

    async def come(self) -> None:
        """Wait until there is something."""
        while not self._messages:
            self._came.clear()
            await self._came.wait()

    def take(self) -> list[Recorded]:
        """The next few."""
        taken = [self._messages.popleft() for _ in range(min(MOST_TAKEN, len(self._messages)))]
        self._room.set()
        return taken
