"""What a driver remembers of what failed, and how long it waits before the next try."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from eventstore.log.store import Conflict, Unavailable
from eventstore.vault.vault import VaultUnavailable
from runtime.patience import pause_after

#: Seconds until the next try: at first, and at most, after what passes by itself and after any other error.
FIRST, LAST_PASSING, LAST = 0.5, 5.0, 60.0
#: The same after somebody else appended first: the winner's event is on its way here.
FIRST_CONFLICT = 0.02
#: Races lost in a row until that counts as a failure.
LOST = 3

#: What says that the log, or the vault beside it, is away.
AWAY = (Unavailable, VaultUnavailable)
#: What passes by itself.
PASSING = (*AWAY, Conflict, OSError)


class TooLong(Exception):
    """What was begun did not come to its end in time."""


class Broken(Exception):
    """What was begun was ended by what it waited for."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How often something failed in a row, since when, and with what. `pause`: seconds until the next try."""

    times: int
    since: datetime
    error: str
    passing: bool
    pause: float
    shown: bool
    """Whether it counts: a race that was lost does not, unless it is lost again and again."""


def failed(before: Failure | None, error: BaseException) -> Failure:
    """The failure that this error makes of what failed before, or had not failed."""
    times = before.times + 1 if before else 1
    passing = isinstance(error, PASSING)
    first = FIRST_CONFLICT if isinstance(error, Conflict) else FIRST
    return Failure(
        times=times,
        since=before.since if before else datetime.now(UTC),
        error=f"{type(error).__name__}: {error}"[:300],
        passing=passing,
        pause=pause_after(times, first, LAST_PASSING if passing else LAST),
        shown=not isinstance(error, Conflict) or times >= LOST,
    )


@asynccontextmanager
async def limit(seconds: float | None) -> AsyncIterator[None]:
    """As `asyncio.timeout`, but raises TooLong, which no other TimeoutError is taken for."""
    try:
        async with asyncio.timeout(seconds) as timer:
            yield
    except TimeoutError as error:
        if timer.expired():
            raise TooLong(f"it took more than {seconds:g} s") from error
        raise
