"""Turns between commands, whose callers wait, and the managers' appends, which may come a moment later.

Both wait for the same disk. While many commands are in flight, a manager waits, but not for ever: it gets a turn after
some time.
"""

import asyncio
from collections.abc import Callable

#: Maximum number of seconds that a manager waits while many commands are in flight, and seconds of its turn after that.
GIVES_WAY, WORKS = 2.0, 0.5
#: Seconds between two looks at the number of commands in flight.
LOOK = 0.005
#: Number of commands in flight from which on a manager waits.
MANY = 8
#: Seconds for which a look that found so many counts. Commands are stored and answered in groups, so that for a moment
#: between two groups there may be none.
COUNTS = 0.1


class Turns:
    """Says when a manager may append. `in_flight`: returns the number of commands that are being answered."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self._in_flight = in_flight
        self._works_until = 0.0
        self._busy_until = 0.0

    async def wait(self, needed: Callable[[], bool] = bool) -> None:
        """Return immediately if few commands are in flight or the manager has its turn; otherwise wait up to GIVES_WAY.

        The wait ends early if `needed` returns True: somebody waits for the manager's work.
        """
        clock = asyncio.get_running_loop().time
        if clock() < self._works_until:
            return
        gives_way_until = clock() + GIVES_WAY
        while self._busy(clock()) and not needed():
            if clock() >= gives_way_until:
                self._works_until = clock() + WORKS
                return
            await asyncio.sleep(LOOK)

    def _busy(self, now: float) -> bool:
        """Whether many commands are in flight, or were a moment ago."""
        if self._in_flight() >= MANY:
            self._busy_until = now + COUNTS
        return now < self._busy_until
