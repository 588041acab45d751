"""The connection to NATS: patient at start, back by itself, and told about once per change rather than per try."""

import asyncio

from nats.aio.client import Client
from nats.errors import Error as NatsError

from runtime import logs
from runtime.settings import Common

log = logs.get(__name__)

FIRST_RETRY, LAST_RETRY = 0.2, 5.0


class QuickClient(Client):
    """nats-py's client with a quicker reading of headers: most of the time that reading the log takes goes there.

    It decodes a block once instead of each name and value. Whatever is not plain (a folded space, other than UTF-8)
    is left to the original.
    """

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        try:
            return dict([line.split(": ", 1) for line in raw.decode().split("\r\n") if line])
        except ValueError:
            return Client._parse_header_lines(raw)


class Teller:
    """Says each trouble of a connection once, until it is over."""

    def __init__(self) -> None:
        self._told = ""

    async def trouble(self, error: Exception) -> None:
        text = repr(error)
        if text != self._told:
            log.warning("bus trouble", error=text)
        self._told = text

    async def lost(self) -> None:
        log.warning("bus lost; reconnecting")

    async def back(self) -> None:
        self._told = ""
        log.warning("bus is back")


async def connect(settings: Common, role: str, *, patient: bool = True) -> Client:
    """A connection that reconnects for ever. While the server is away at start, says so and tries on (`patient`).

    Raises nats.errors.Error or OSError when not patient and nobody answers.
    """
    delay = FIRST_RETRY
    while True:
        try:
            return await _connected(settings, role)
        except (NatsError, OSError, TimeoutError) as error:
            if not patient:
                raise
            log.warning("bus unreachable", url=settings.nats_url, error=str(error), retry_in=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY)


async def _connected(settings: Common, role: str) -> Client:
    teller = Teller()
    connection = QuickClient()
    await connection.connect(
        servers=[url.strip() for url in settings.nats_url.split(",")],
        name=f"nebula-{role}",
        user=settings.nats_user,
        password=settings.nats_password,
        allow_reconnect=True,
        max_reconnect_attempts=1,  # at first: with -1 the client would try for ever, and say nothing, in here
        reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; a fraction works, the annotation says int
        connect_timeout=2,
        ping_interval=5,
        max_outstanding_pings=2,
        pending_size=32 * 1024 * 1024,
        error_cb=teller.trouble,
        disconnected_cb=teller.lost,
        reconnected_cb=teller.back,
    )
    connection.options["max_reconnect_attempts"] = -1
    return connection
