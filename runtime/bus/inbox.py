"""An inbox that returns many messages at a time.

nats-py's `next_msg` creates a task and a timer for each message, which costs more than all other work of reading the
log. Here a callback collects the messages, and the reader takes all of them together.
"""

import asyncio
import contextlib
from collections import deque
from itertools import islice
from types import TracebackType
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError, Error as NatsError, StaleConnectionError

from runtime.tasks.tasks import happens

#: Seconds between checks whether the connection was closed or replaced, while no message comes.
LOOK = 0.25


class Inbox:
    """Subscribed to `subject` inside the block. It keeps all messages until they are taken, without a limit."""

    def __init__(self, nc: Client) -> None:
        self.subject = nc.new_inbox()
        self._nc = nc
        self._arrived = asyncio.Event()
        self._messages: deque[Msg] = deque()
        self._subscription: Subscription | None = None
        self._connection = 0

    async def __aenter__(self) -> Self:
        self._connection = self._nc.stats["reconnects"]
        self._subscription = await self._nc.subscribe(
            self.subject, cb=self._put, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Unsubscribe, also while disconnected: otherwise a reconnect would subscribe again."""
        if self._subscription is not None:
            with contextlib.suppress(NatsError, OSError):
                await self._subscription.unsubscribe()

    async def take(self, seconds: float, most: int) -> list[Msg]:
        """Wait for messages: at least one and up to `most`, in order.

        Raises TimeoutError if no message comes within `seconds`, ConnectionClosedError if the connection is closed,
        StaleConnectionError if it was replaced, so that messages may be lost.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while not self._messages:
            if self._nc.is_closed:
                raise ConnectionClosedError
            if self._nc.stats["reconnects"] != self._connection:
                raise StaleConnectionError
            if clock() >= deadline:
                raise TimeoutError(f"no message came within {seconds:g} s")
            self._arrived.clear()
            await happens(self._arrived, min(LOOK, max(0.0, deadline - clock())))
        taken = list(islice(self._messages, most))
        for _ in taken:
            self._messages.popleft()
        return taken

    async def _put(self, message: Msg) -> None:
        self._messages.append(message)
        self._arrived.set()
