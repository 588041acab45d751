"""A process says every second how it is, on a subject of its own. Nothing is stored: who wants to know listens."""

import asyncio
from collections.abc import Callable

from nats.aio.client import Client
from nats.errors import Error as NatsError

from runtime import logs

log = logs.get(__name__)

#: Seconds between two words.
EVERY = 1.0


async def tell(nc: Client, subject: str, word: Callable[[bool], bytes]) -> None:
    """Say it for ever; at the end, that the process ends (`word(True)`). While the bus is away nothing is kept for
    later.
    """
    try:
        while True:
            await _say(nc, subject, word(False))
            await asyncio.sleep(EVERY)
    finally:
        await _say(nc, subject, word(True))


async def _say(nc: Client, subject: str, body: bytes) -> None:
    if not nc.is_connected:
        return
    try:
        await nc.publish(subject, body)
    except (NatsError, OSError) as error:
        log.debug("status not sent", error=repr(error))
