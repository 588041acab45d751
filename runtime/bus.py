"""The connection to NATS: patient at start, silent about nothing, back by itself."""

import asyncio
from collections.abc import Callable

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from runtime import logs
from runtime.settings import Common

log = logs.get(__name__)


async def connect(settings: Common, role: str, *, patient: bool = True) -> Client:
    """A connection that reconnects for ever. While the server is away at start, says so and tries on (`patient`).

    Raises nats.errors.Error when not patient and nobody answers.
    """
    delay = 0.2
    while True:
        try:
            return await nats.connect(
                servers=[url.strip() for url in settings.nats_url.split(",")],
                name=f"nebula-{role}",
                user=settings.nats_user,
                password=settings.nats_password,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,
                connect_timeout=2,
                ping_interval=5,
                max_outstanding_pings=2,
                pending_size=32 * 1024 * 1024,
                error_cb=_note("bus error"),
                disconnected_cb=_notice("bus lost; reconnecting"),
                reconnected_cb=_notice("bus is back"),
            )
        except (NatsError, OSError, TimeoutError) as error:
            if not patient:
                raise
            log.warning("bus unreachable", url=settings.nats_url, error=str(error), retry_in=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)


def _note(text: str) -> Callable[[Exception], object]:
    async def callback(error: Exception) -> None:
        log.warning(text, error=repr(error))

    return callback


def _notice(text: str) -> Callable[[], object]:
    async def callback() -> None:
        log.warning(text)

    return callback
