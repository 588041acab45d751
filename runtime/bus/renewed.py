"""A connection changes to its renewed credential by itself, in a quiet moment before the earlier one expires.

When a credential expires, the server ends the connection, whatever is on its way. So a connection looks whether its
file has a newer credential, and then connects again:

1. New requests wait, and those that were sent get their answers.
2. The server is told to deliver nothing more, and what it delivered before is read. A node answers what it was asked:
   its credential may answer only on the connection that has heard the request.
3. The connection connects again, subscribes again, and sends what was published meanwhile.

A request to this process finds nobody in between, and is sent again (`requests.py`).
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.protocol.command import unsub_cmd

from runtime import logs
from runtime.bus.accounts import credentials
from runtime.bus.accounts.credentials import BadCredentials, Credential
from runtime.tasks.patience import one_line

log = logs.get(__name__)

#: Seconds between two looks at the file, at least and at most; and a share of the time that the credential has left.
LEAST, MOST, SHARE = 0.2, 60.0, 0.1
#: Seconds for which new requests wait for the answers to earlier ones. If it takes longer, it is tried again later.
HELD = 0.5
#: Seconds for each step of the change itself.
STEP = 2.0
#: Seconds after which nobody waits for an answer any more, and number of requests that are remembered.
FORGOTTEN, MOST_HEARD = 60.0, 10_000
_PAUSE = 0.005


def found(file: Path) -> Credential | None:
    """The credential in a file; None if it cannot be read."""
    try:
        return credentials.read(file)
    except (OSError, BadCredentials):
        return None


def is_later(newer: Credential, used: Credential | None) -> bool:
    """Whether a credential expires later than the one that is used."""
    if used is None or used.expires is None:
        return False
    return newer.expires is None or newer.expires > used.expires


class Renewed:
    """The change of one connection."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        #: the credential with which the connection was made
        self.used: Credential | None = None
        #: whether the connection is lost because it changes
        self.changing = False
        self._open = asyncio.Event()
        self._open.set()
        self._heard: dict[str, float] = {}

    async def admitted(self) -> None:
        """Wait while no new request may be sent."""
        await self._open.wait()

    @property
    def answering(self) -> bool:
        """Whether the connection may answer only what it has heard itself."""
        return self.used is not None and self.used.answering

    def heard(self, reply: str) -> None:
        """A request came, which is to be answered on this connection."""
        self._heard[reply] = time.monotonic()
        if len(self._heard) > MOST_HEARD:
            del self._heard[next(iter(self._heard))]

    def answered(self, subject: str) -> None:
        self._heard.pop(subject, None)

    def _owes(self) -> bool:
        """Whether somebody waits for an answer of this connection."""
        old = time.monotonic() - FORGOTTEN
        while self._heard and next(iter(self._heard.values())) < old:
            del self._heard[next(iter(self._heard))]
        return bool(self._heard)

    async def keep(self, file: Path) -> None:
        """Change to each newer credential in the file, for ever."""
        while True:
            expires = self.used.expires if self.used is not None else None
            left = max(0.0, expires - time.time()) if expires is not None else MOST / SHARE
            await asyncio.sleep(min(MOST, max(LEAST, left * SHARE)) * random.uniform(0.5, 1.0))  # noqa: S311
            newer = await asyncio.to_thread(found, file)
            if newer is None or not self._nc.is_connected or not is_later(newer, self.used):
                continue
            try:
                if await self.change():
                    log.info("connected again with the renewed credential", name=newer.name)
            except (NatsError, OSError, TimeoutError) as error:  # the connection was lost meanwhile: nats-py goes on
                log.info("the connection was lost while it changed its credential", error=one_line(error))
            except Exception:  # a bug in Nebula; the server ends the connection later
                log.exception("the connection cannot change its credential")

    async def change(self) -> bool:
        """Connect again in a quiet moment. Returns whether there was one.

        Raises nats.errors.Error, OSError, TimeoutError.
        """
        self._open.clear()
        try:
            if not await self._becomes(lambda: not self._nc._resp_map and not self._owes(), HELD):
                return False
            self.changing = True
            try:
                for sid in list(self._nc._subs):
                    await self._nc._send_command(unsub_cmd(sid, 0))
                await self._nc.flush(timeout=2)
                if not await self._becomes(lambda: not self._owes(), STEP):
                    log.warning("some questions are not answered, because the credential was renewed")
                await self._nc.flush(timeout=2)
            finally:  # whatever happened: only a new connection subscribes again
                await self._nc.force_reconnect()
            return await self._becomes(lambda: self._nc.is_connected, STEP)
        finally:
            self.changing = False
            self._open.set()

    async def _becomes(self, true: Callable[[], bool], seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not true():  # noqa: ASYNC110  (nats-py notifies nobody)
                    await asyncio.sleep(_PAUSE)
        return true()
