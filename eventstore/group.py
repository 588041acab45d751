"""Group commit: single events that want to be appended at the same time are stored as one atomic batch.

A durable server waits for its disk once per batch, and answers once: sixty events together cost about as much as
seven alone. Few at a time are sent as they come, so that nobody waits for company. Whether an event went alone or in
company cannot be told from the outcome: when a batch is refused, each of its events is tried by itself.
"""

import asyncio
from collections import deque

from eventstore.jetstream import Conflict, Message, Stream

#: So many events are under way alone before the next ones gather.
ALONE = 8
#: The most events, and bytes, in one batch.
MOST, MOST_BYTES = 64, 512 * 1024

Waiting = tuple[Message, "asyncio.Future[int]"]


class GroupCommit:
    """Appends single events to one stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._alone = 0
        self._waiting: deque[Waiting] = deque()
        self._storing: asyncio.Task[None] | None = None

    async def append(self, message: Message) -> int:
        """Store one event; its position. Raises what `Stream.append` raises."""
        if self._storing is None and self._alone < ALONE:
            self._alone += 1
            try:
                return await self._stream.append([message])
            finally:
                self._alone -= 1
                self._begin()
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, stored))
        return await stored

    def _begin(self) -> None:
        if self._waiting and self._storing is None:
            self._storing = asyncio.create_task(self._store())

    async def _store(self) -> None:
        try:
            while self._waiting:
                await self._store_together(self._next())
        finally:
            self._storing = None

    def _next(self) -> list[Waiting]:
        """The events that go together: in the order of their coming, and of each subject only one."""
        group: list[Waiting] = []
        subjects: set[str] = set()
        size = 0
        while self._waiting and len(group) < MOST and size < MOST_BYTES:
            message, _ = self._waiting[0]
            if message.subject in subjects:
                break
            subjects.add(message.subject)
            size += len(message.body)
            group.append(self._waiting.popleft())
        return group

    async def _store_together(self, group: list[Waiting]) -> None:
        try:
            last = await self._stream.append([message for message, _ in group])
        except Conflict:
            await asyncio.gather(*(self._store_alone(waiting) for waiting in group))
        except Exception as error:
            for _, stored in group:
                if not stored.done():
                    stored.set_exception(error)
        else:
            for position, (_, stored) in enumerate(group, start=last - len(group) + 1):
                if not stored.done():
                    stored.set_result(position)

    async def _store_alone(self, waiting: Waiting) -> None:
        message, stored = waiting
        try:
            position = await self._stream.append([message])
        except Exception as error:
            if not stored.done():
                stored.set_exception(error)
        else:
            if not stored.done():
                stored.set_result(position)
