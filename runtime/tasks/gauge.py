"""Limits progress reports: often enough for people, and few enough for a log that is kept for ever."""

import time
from collections.abc import Callable

#: Minimum number of seconds between two reports, and the minimum share of the total.
SECONDS, SHARE = 5.0, 0.1
#: Minimum number of bytes between two reports while the total is unknown.
STEP = 256 * 1024**2


class Gauge:
    """Call it with the bytes that are done, and the total, as often as you like. It calls `tell` for some of them: at
    most every five seconds, and at most ten times for the total.
    """

    def __init__(self, tell: Callable[[int, int | None], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._reported_at = clock()
        self._reported = 0

    def __call__(self, done: int, total: int | None) -> None:
        step = total * SHARE if total else STEP
        if done < self._reported:
            self._reported = 0  # the work was started again
        if self._clock() - self._reported_at >= SECONDS and done - self._reported >= step and done != total:
            self._reported_at, self._reported = self._clock(), done
            self._tell(done, total)


def share(done: int, total: int | None) -> str:
    """The progress for people: `30 % of 186 MiB`."""
    return f"{100 * done // total} % of {size(total)}" if total else size(done)


def size(amount: int) -> str:
    """A number of bytes for people."""
    if amount < 1024**2:
        return f"{amount / 1024:.0f} KiB" if amount >= 1024 else f"{amount} B"
    return f"{amount / 1024**3:.1f} GiB" if amount >= 10 * 1024**3 else f"{amount / 1024**2:.0f} MiB"
