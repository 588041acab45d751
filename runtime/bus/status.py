"""Each process publishes its status every second on a subject of its own. The messages are not stored."""

import asyncio
from collections.abc import Callable

from nats.aio.client import Client
from nats.errors import Error as NatsError

from runtime import logs

log = logs.get(__name__)

#: Seconds between two status messages.
EVERY = 1.0


async def publish_status(nc: Client, subject: str, status: Callable[[bool], bytes]) -> None:
    """Publish the status for ever, and at the end that the process ends (`status(True)`). While the bus is
    disconnected, nothing is sent, also not later.
    """
    try:
        while True:
            await _publish(nc, subject, status(False))
            await asyncio.sleep(EVERY)
    finally:
        await _publish(nc, subject, status(True))


async def _publish(nc: Client, subject: str, body: bytes) -> None:
    if not nc.is_connected:
        return
    try:
        await nc.publish(subject, body)
    except (NatsError, OSError) as error:
        log.debug("status not sent", error=repr(error))
