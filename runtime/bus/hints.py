"""Hints that a stream may have new messages: messages on its subjects, which the reader hears as well.

A hint may come before its message is stored, or before the server that is asked has it; and its message may be refused.
So the reader asks again for a while, until the stream has returned the messages of all hints.
"""

import asyncio

from nats.aio.msg import Msg

from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import happens

#: Seconds for which the message of a hint is looked for.
PATIENCE = 0.5
#: Seconds between two looks.
AGAIN = Backoff(first=0.001, last=0.25, jitter=0.0)
#: At most so many hints are looked for. A reader that is further behind gets these messages anyway.
MOST = 4096


class Hints:
    """The hints whose messages were not found yet. The content of a hint only serves to recognise its message."""

    def __init__(self) -> None:
        #: when each hint came, in seconds of the event loop's clock; in this order
        self._open: dict[int, float] = {}
        self._came = asyncio.Event()
        self._pauses = AGAIN.pauses()

    async def note(self, msg: Msg) -> None:
        """A hint has come."""
        if len(self._open) < MOST:
            key = identity(msg)
            self._open.pop(key, None)
            self._open[key] = asyncio.get_running_loop().time()
        self._came.set()

    def found(self, msg: Msg) -> None:
        """The stream has returned this message."""
        if self._open:
            self._open.pop(identity(msg), None)

    def missing(self) -> bool:
        """Whether the message of a hint is not found yet, and may still come."""
        old = asyncio.get_running_loop().time() - PATIENCE
        while self._open and next(iter(self._open.values())) < old:
            del self._open[next(iter(self._open))]
        return bool(self._open)

    async def pause(self) -> None:
        """Wait before the next look; not if there is a new hint, and no longer than until the next one."""
        await self.wait(next(self._pauses))

    async def wait(self, seconds: float) -> bool:
        """Wait for a hint, for at most so many seconds. Returns whether one came since the last wait."""
        came = await happens(self._came, seconds)
        self._came.clear()
        if came:
            self._pauses = AGAIN.pauses()
        return came


def identity(msg: Msg) -> int:
    return hash((msg.subject, msg.data, (msg.headers or {}).get("ce-id")))
