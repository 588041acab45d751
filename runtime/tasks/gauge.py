"""Progress reports: often enough for people, and few enough for a log that is kept for ever."""

import time
from collections.abc import Callable

#: Seconds from one word to the next at the least; and the share of the whole that makes another one worth it.
SECONDS, SHARE = 5.0, 0.1
#: Bytes that make one worth it while nobody knows how many there will be.
STEP = 256 * 1024**2


class Gauge:
    """Called with bytes done and bytes in all as often as anybody likes; calls `tell` now and then.

    At most every five seconds, and at most ten times for the whole.
    """

    def __init__(self, tell: Callable[[int, int | None], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._told_at = clock()
        self._told = 0

    def __call__(self, done: int, total: int | None) -> None:
        step = total * SHARE if total else STEP
        if done < self._told:
            self._told = 0  # it has begun anew
        if self._clock() - self._told_at >= SECONDS and done - self._told >= step and done != total:
            self._told_at, self._told = self._clock(), done
            self._tell(done, total)


def share(done: int, total: int | None) -> str:
    """How far it is, for people: `30 % of 186 MiB`."""
    return f"{100 * done // total} % of {size(total)}" if total else size(done)


def size(amount: int) -> str:
    """Bytes for people."""
    if amount < 1024**2:
        return f"{amount / 1024:.0f} KiB" if amount >= 1024 else f"{amount} B"
    return f"{amount / 1024**3:.1f} GiB" if amount >= 10 * 1024**3 else f"{amount / 1024**2:.0f} MiB"
