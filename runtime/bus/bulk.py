"""Reads many messages of a stream as bytes, for a reader that decodes them elsewhere."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from nats.errors import ConnectionClosedError, Error as NatsError, StaleConnectionError

from runtime.bus.api import api
from runtime.bus.headers import FIRST_LINE, parsed
from runtime.bus.quick_client import QuickClient
from runtime.tasks.tasks import happens

Bytes = tuple[bytes, bytes]
"""The headers and the body of a message."""

LOOK = 0.5
"""Seconds between checks whether messages still come."""
MOST_BYTES = 8 * 1024**2
"""Bytes after which the server ends an answer."""
_STORED = FIRST_LINE + b"\r\n"


@asynccontextmanager
async def collected(nc: QuickClient, subject: str) -> AsyncIterator["Bulk"]:
    """The messages on a subject, as they arrive inside the block, without decoding them."""
    subscription = await nc.subscribe(subject)
    [sid] = [sid for sid, one in nc._subs.items() if one is subscription]
    bulk = Bulk()
    nc.collecting[sid] = bulk.put
    try:
        yield bulk
    finally:
        del nc.collecting[sid]
        with contextlib.suppress(NatsError, OSError):
            await subscription.unsubscribe()


class Bulk:
    """The messages of one direct get, in order."""

    def __init__(self) -> None:
        self.messages: list[Bytes] = []
        self.ended = asyncio.Event()

    def put(self, headers: bytes, body: bytes) -> None:
        if headers.startswith(_STORED) or is_stored(headers):
            self.messages.append((headers, body))
        else:  # a status of the server: there are no more
            self.ended.set()


def is_stored(headers: bytes) -> bool:
    """Whether a message with a status in its first line is one of the stream: the server's own have no sequence."""
    return "Nats-Sequence" in (parsed(headers) or {})


async def get(nc: QuickClient, stream: str, first: int, count: int, wait: float) -> list[Bytes]:
    """Up to `count` messages from position `first` on: fewer at the end of the stream, and after MOST_BYTES.

    Raises as `ask`.
    """
    return await ask(nc, stream, {"seq": first, "batch": count, "max_bytes": MOST_BYTES}, wait)


async def ask(nc: QuickClient, stream: str, what: Mapping[str, object], wait: float) -> list[Bytes]:
    """The messages that answer a batched direct get.

    Raises TimeoutError if nothing comes for `wait` seconds, nats.errors.Error.
    """
    inbox, connection = nc.new_inbox(), nc.stats["reconnects"]
    async with collected(nc, inbox) as bulk:
        await nc.publish(api(nc, f"DIRECT.GET.{stream}"), json.dumps(what).encode(), reply=inbox)
        silent, before = 0.0, 0
        while not await happens(bulk.ended, LOOK):
            if nc.is_closed:
                raise ConnectionClosedError
            if nc.stats["reconnects"] != connection:
                raise StaleConnectionError
            silent = 0.0 if len(bulk.messages) > before else silent + LOOK
            before = len(bulk.messages)
            if silent >= wait:
                raise TimeoutError(f"no message came within {wait:g} s")
        return bulk.messages
