"""The log position of the read models, and how to wait for it."""

import asyncio
import contextlib

from psycopg import Error, errors

from projections import database
from runtime import logs
from runtime.tasks.patience import CannotRun, one_line
from runtime.tasks.tasks import happens

log = logs.get(__name__)

#: Seconds after which the position is queried even without a notification.
ASK_AGAIN = 5.0
#: Minimum number of seconds between two queries while nobody waits for a change.
UNAWAITED = 0.1
RETRY_SECONDS = 0.5
#: Errors of Postgres while the read models are being built, or are not granted yet.
NOT_READY = (errors.UndefinedTable, errors.InvalidSchemaName, errors.InsufficientPrivilege)


class Position:
    """A log position that changes; others can wait until it reaches a value."""

    def __init__(self) -> None:
        self.value = 0
        self._moved = asyncio.Event()
        self._waiting = 0
        self._awaited = asyncio.Event()

    def set(self, position: int) -> None:
        """Change it. It decreases only when the read models do (a crash of Postgres, a rebuild)."""
        if position != self.value:
            self.value = position
            self._moved.set()
            self._moved = asyncio.Event()

    async def moved(self, seconds: float) -> None:
        """Return at the next change, or after so many seconds."""
        self._waiting += 1
        self._awaited.set()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), seconds)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._awaited.clear()

    async def awaited(self, seconds: float) -> None:
        """Return as soon as somebody waits for a change, or after so many seconds."""
        if not self._waiting:
            await happens(self._awaited, seconds)

    async def reach(self, position: int, seconds: float) -> bool:
        """Wait until it has reached `position`. False if that takes longer than `seconds`."""
        if self.value >= position:
            return True
        deadline = asyncio.get_running_loop().time() + seconds
        while self.value < position:
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                return False
            await self.moved(remaining)
        return True


async def listen(dsn: str, position: Position, schema: str = database.SCHEMA) -> None:
    """Keep `position` equal to the checkpoint of the live read models in `schema`, for ever, with reconnections.

    While nobody waits for a change, it may be a moment behind.

    Raises CannotRun if Postgres refuses this role at the first connection. Later refusals are retried.
    """
    connected = away = False
    while True:
        try:
            async with await database.connected(dsn, "position", schema) as conn:
                await conn.execute(f"LISTEN {schema}_position".encode())
                while True:
                    position.set(await database.checkpoint(conn))
                    if away:
                        log.info("the read models can be queried again", schema=schema, position=position.value)
                    connected, away = True, False
                    async for _ in conn.notifies(timeout=ASK_AGAIN, stop_after=1):
                        pass  # its content is ignored: every role of the database can send a notification
                    await position.awaited(UNAWAITED)  # a busy log notifies with each event; one query reads them all
        except (Error, OSError, CannotRun) as error:
            passing = (
                database.lost(error) or isinstance(error, NOT_READY) or (isinstance(error, CannotRun) and connected)
            )
            if not passing:
                raise
            if not away:
                log.warning("the read models cannot be queried; trying again", schema=schema, error=one_line(error))
                away = True
            await asyncio.sleep(RETRY_SECONDS)
