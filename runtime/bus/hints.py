"""Hints that a stream may have new messages: messages on its subjects, which the reader hears as well.

A hint may come before its message is stored, or before the server that is asked has it; and its message may be refused.
So the reader asks again for a while, until the stream has returned the messages of all hints. While many messages come,
it looks by itself, without hints (`polling.py`).
"""

import asyncio
import contextlib

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from runtime.bus import polling
from runtime.bus.polling import Polling
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

    def forget(self) -> None:
        """Look for no messages of earlier hints any more."""
        self._open.clear()

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


class Listener:
    """Says when to look at a stream. Use it as a context manager."""

    def __init__(self, nc: Client, filter_: str) -> None:
        self.hints = Hints()
        self._nc = nc
        self._filter = filter_
        self._subscription: Subscription | None = None
        self._polling = Polling()

    async def __aenter__(self) -> "Listener":
        await self._hear()
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # the connection may be closed
            await self._ignore()

    async def wait(self, count: int, seconds: float) -> bool:
        """Wait until the stream has to be read again, at most so many seconds. `count`: messages since the last wait.

        Returns False if nothing has happened in that time.
        """
        if self._polling.looks:
            self._polling.note(count)
            await self._look_again()
            return True
        if self._polling.begins(count):
            await self._look_again()
            return True
        if self.hints.missing():
            await self.hints.pause()
            return True
        return await self.hints.wait(seconds)

    async def _look_again(self) -> None:
        """Rest before the next look. In the end it hears hints for a while, and still looks: another server of a
        cluster does not know immediately that it hears them.
        """
        if self._polling.calm == 0 and self._subscription is not None:
            await self._ignore()
            self.hints.forget()
        elif self._polling.calm >= polling.CALM:
            await self._hear()
        if self._polling.calm >= 2 * polling.CALM:
            self._polling.end()
        else:
            await self._polling.rest()

    async def _hear(self) -> None:
        if self._subscription is None:
            self._subscription = await self._nc.subscribe(self._filter, cb=self.hints.note)

    async def _ignore(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.unsubscribe()


def identity(msg: Msg) -> int:
    return hash((msg.subject, msg.data, (msg.headers or {}).get("ce-id")))
