"""The queue of messages that were received from the log and are not folded yet."""

import asyncio
from collections import deque

from eventstore.log.envelope import Recorded
from runtime.tasks.tasks import happens

#: Number of messages from which on the receiver waits; maximum number of messages that `take` returns.
MOST, MOST_TAKEN = 10_000, 256


class Backlog:
    """Messages in the order of the log, from one task that receives them to one that folds them."""

    def __init__(self) -> None:
        self._messages: deque[Recorded] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    def full(self) -> bool:
        return len(self._messages) >= MOST

    async def put(self, messages: list[Recorded]) -> None:
        """Add messages, once there is room."""
        while self.full():
            self._room.clear()
            await self._room.wait()
        self._messages.extend(messages)
        self._arrived.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until there is a message, at most so many seconds. Returns whether there is one."""
        while not self._messages:
            self._arrived.clear()
            if not await happens(self._arrived, seconds):
                return False
        return True

    def take(self) -> list[Recorded]:
        """Remove and return the next messages."""
        taken = [self._messages.popleft() for _ in range(min(MOST_TAKEN, len(self._messages)))]
        self._room.set()
        return taken
