"""The failures that a driver keeps, and how long it waits before the next try."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from eventstore.log.store import Conflict, Unavailable
from eventstore.vault.vault import VaultUnavailable
from runtime.tasks.backoff import Backoff

#: Pauses before the next try: after an unknown error, and after one that ends by itself.
RETRY, RETRY_PASSING = Backoff(first=0.5, last=60.0), Backoff(first=0.5, last=5.0)
#: Pauses after a conflict: the event of the process that appended first arrives soon.
RETRY_CONFLICT = Backoff(first=0.02, last=5.0)
#: Number of consecutive conflicts from which on they count as a failure.
LOST = 3

#: Errors which mean that the log or the vault is unavailable.
AWAY = (Unavailable, VaultUnavailable)
#: Errors that end by themselves.
PASSING = (*AWAY, Conflict, OSError)


class TooLong(Exception):
    """A look or an item took longer than its limit."""


class Broken(Exception):
    """An item was cancelled by its own code."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Consecutive failures of a look or an item: their number, since when, and the last error.

    `pause`: seconds until the next try. `passing`: whether the error ends by itself.
    """

    times: int
    since: datetime
    error: str
    passing: bool
    pause: float
    shown: bool
    """Whether operators see it: not for the first conflicts in a row."""


def failed(before: Failure | None, error: BaseException) -> Failure:
    """The failure after this error. `before`: the failure until now, None if there was none."""
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
    """As `asyncio.timeout`, but raises TooLong, which cannot be confused with other TimeoutErrors."""
    try:
        async with asyncio.timeout(seconds) as timer:
            yield
    except TimeoutError as error:
        if timer.expired():
            raise TooLong(f"it took more than {seconds:g} s") from error
        raise
