"""What a driver remembers of what failed, and how long it waits before the next try."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from eventstore.log.store import Conflict, Unavailable
from eventstore.vault.vault import VaultUnavailable
from runtime.tasks.backoff import Backoff

#: Until the next try after any error, and after what passes by itself.
RETRY, RETRY_PASSING = Backoff(first=0.5, last=60.0), Backoff(first=0.5, last=5.0)
#: The same after somebody else appended first: the winner's event is on its way here.
RETRY_CONFLICT = Backoff(first=0.02, last=5.0)
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
    return Failure(
        times=times,
        since=before.since if before else datetime.now(UTC),
        error=f"{type(error).__name__}: {error}"[:300],
        passing=passing,
        pause=backoff(error).after(times),
        shown=not isinstance(error, Conflict) or times >= LOST,
    )


def backoff(error: BaseException) -> Backoff:
    if isinstance(error, Conflict):
        return RETRY_CONFLICT
    return RETRY_PASSING if isinstance(error, PASSING) else RETRY


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
