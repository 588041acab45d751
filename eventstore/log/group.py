"""Group commit: concurrent appends are stored as one atomic batch.

A durable server waits for its disk once per batch, and answers once. But it makes a directory with files for each
batch: a batch costs about as much as twenty single events, however few it has. So a few single events are sent one by
one. The first append is sent immediately, so that an append on an idle server does not wait.
The outcome of an append does not depend on its batch: if a batch is refused, each append in it is tried separately.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from eventstore.log.jetstream import Conflict, Message, NoBatches, Stream, TooLarge, TooMany
from eventstore.log.received import EXPECTED_ON

#: Number of single appends in progress from which on further appends are grouped. One more is a batch of its own, which
#: begins in the same turn of the event loop as those that come with it.
ALONE = 1
#: Number of single events up to which a group is sent one by one: that is faster than a batch, and costs no more.
FEW = 16
#: Maximum number of events, and of bytes, in one batch. A larger append is sent alone.
MOST, MOST_BYTES = 64, 512 * 1024
#: Seconds after which batches are tried again on a stream that allows none.
TRY_AGAIN = 30.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """One append, whose messages are stored together or not at all. `stored` gets the position of the last one."""

    messages: Sequence[Message]
    stored: "asyncio.Future[int]"

    def size_and_claims(self) -> tuple[int, set[str]]:
        """The size in bytes, and its subjects with the filters of its expectations. Appends that share one cannot be in
        the same batch, because the server does not compare the messages of one batch with each other.
        """
        size = 0
        claims: set[str] = set()
        for subject, headers, body in self.messages:
            size += len(body)
            claims.add(subject)
            if "*" in (filter_ := headers.get(EXPECTED_ON, "")):
                claims.add(filter_)
        return size, claims

    def done(self, last: int) -> None:
        if not self.stored.done():
            self.stored.set_result(last)

    def failed(self, error: Exception) -> None:
        if not self.stored.done():
            self.stored.set_exception(error)


class GroupCommit:
    """Appends to one stream, in groups."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._alone = 0
        self._waiting: deque[Waiting] = deque()
        self._storing: asyncio.Task[None] | None = None
        self._batch: asyncio.Future[None] | None = None
        """Ends with the batch that is being stored now."""
        self._alone_until = 0.0
        """Until then, each append is sent alone, because the stream allows no batches."""

    async def append(self, messages: Sequence[Message]) -> int:
        """Store all messages at consecutive positions, or none. Returns the position of the last one.

        Raises the errors of `Stream.append`.
        """
        if asyncio.get_running_loop().time() < self._alone_until:
            return await self._stream.append(messages)
        if self._storing is None and self._alone < ALONE:
            self._alone += 1
            try:
                return await self._stream.append(messages)
            finally:
                self._alone -= 1
                self._begin()
        waiting = Waiting(messages, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._begin()
        return await waiting.stored

    async def batch(self, seconds: float) -> None:
        """Wait until the group that is being stored now is stored or refused, at most so long. Without one, return."""
        if self._batch is not None:
            await asyncio.wait([self._batch], timeout=seconds)

    def _begin(self) -> None:
        if self._waiting and self._storing is None:
            self._storing = asyncio.create_task(self._store())

    async def _store(self) -> None:
        try:
            while self._waiting:
                self._batch = asyncio.get_running_loop().create_future()
                try:
                    if group := self._next():
                        await self._store_together(group)
                finally:
                    self._batch.set_result(None)
                    self._batch = None
        finally:
            self._storing = None

    def _next(self) -> list[Waiting]:
        """The appends of the next batch, in the order of their arrival. No two of them share a subject or filter."""
        group: list[Waiting] = []
        subjects: set[str] = set()
        count = size = 0
        while self._waiting:
            waiting = self._waiting[0]
            if waiting.stored.done():  # its caller was cancelled
                self._waiting.popleft()
                continue
            its_size, its = waiting.size_and_claims()
            count, size = count + len(waiting.messages), size + its_size
            if group and (count > MOST or size > MOST_BYTES or not its.isdisjoint(subjects)):
                break
            subjects |= its
            group.append(self._waiting.popleft())
        return group

    async def _store_together(self, group: Sequence[Waiting]) -> None:
        if 1 < len(group) <= FEW and all(len(waiting.messages) == 1 for waiting in group):
            await asyncio.gather(*(self._store_alone(waiting) for waiting in group))
            return
        try:
            messages = [message for waiting in group for message in waiting.messages]
            position = await self._stream.append(messages, grouped=len(group) > 1)
        except (Conflict, TooLarge, TooMany, NoBatches) as error:
            if isinstance(error, NoBatches):
                self._alone_until = asyncio.get_running_loop().time() + TRY_AGAIN
            await asyncio.gather(*(self._store_alone(waiting) for waiting in group))
        except Exception as error:
            for waiting in group:
                waiting.failed(error)
        else:
            position -= len(messages)
            for waiting in group:
                position += len(waiting.messages)
                waiting.done(position)

    async def _store_alone(self, waiting: Waiting) -> None:
        try:
            waiting.done(await self._stream.append(waiting.messages))
        except Exception as error:
            waiting.failed(error)
