"""How far the read models are, for those who wait for them."""

import asyncio
import contextlib

from psycopg import Error, errors

from projections import database
from runtime import logs
from runtime.tasks.patience import CannotRun, one_line

log = logs.get(__name__)

#: Seconds after which the position is asked for although no notice came.
ASK_AGAIN = 5.0
RETRY_SECONDS = 0.5
#: What Postgres says while the read models are made, or are not granted yet.
MADE_ANEW = (errors.UndefinedTable, errors.InvalidSchemaName, errors.InsufficientPrivilege)


class Position:
    """A log position that moves; others can wait until it reaches theirs."""

    def __init__(self) -> None:
        self.value = 0
        self._moved = asyncio.Event()

    def set(self, position: int) -> None:
        """Move it. It goes back only when the read models do (a crash of Postgres, a rebuild)."""
        if position != self.value:
            self.value = position
            self._moved.set()
            self._moved = asyncio.Event()

    async def moved(self, seconds: float) -> None:
        """Return when it moves next, or when the time has passed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._moved.wait(), seconds)

    async def reach(self, position: int, seconds: float) -> bool:
        """Wait until it is at `position` or beyond; False when the time passed first."""
        if self.value >= position:
            return True
        deadline = asyncio.get_running_loop().time() + seconds
        while self.value < position:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await self.moved(left)
        return True


async def listen(dsn: str, position: Position) -> None:
    """Keep `position` at the checkpoint of the live read models, for ever, over losses of the connection.

    Raises CannotRun when Postgres does not know us. Once it did, that is waited for as well.
    """
    known = away = False
    while True:
        try:
            async with await database.connected(dsn, "position") as conn:
                await conn.execute(f"LISTEN {database.SCHEMA}_position".encode())
                while True:
                    position.set(await database.checkpoint(conn))
                    if away:
                        log.info("read models are back", position=position.value)
                    known, away = True, False
                    async for _ in conn.notifies(timeout=ASK_AGAIN, stop_after=1):
                        pass  # what it says counts for nothing: whoever may log in to the database can send one
        except (Error, OSError, CannotRun) as error:
            passing = database.lost(error) or isinstance(error, MADE_ANEW) or (isinstance(error, CannotRun) and known)
            if not passing:
                raise
            if not away:
                log.warning("read models cannot be asked; trying on", error=one_line(error))
                away = True
            await asyncio.sleep(RETRY_SECONDS)
