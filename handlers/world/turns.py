"""Turns between commands, which people wait for, and the managers' own appends, which can come a moment later.

Both wait for the same disk. While many commands are in flight a manager gives way, but not for ever: it has a turn of
its own every now and then.
"""

import asyncio
from collections.abc import Callable

#: Seconds that a manager gives way at most, and then works, while many commands are in flight.
GIVES_WAY, WORKS = 2.0, 0.5
#: Seconds between two looks at how many there are.
LOOK = 0.005
#: From so many commands in flight on, a manager gives way.
MANY = 8


class Turns:
    """Says when a manager may append. `in_flight` tells how many commands are being answered."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self._in_flight = in_flight
        self._works_until = 0.0

    async def wait(self, needed: Callable[[], bool] = bool) -> None:
        """Return at once while it is calm, or while the manager's own turn lasts; after `GIVES_WAY` at most.

        Giving way ends early when somebody waits for what the manager does (`needed`).
        """
        clock = asyncio.get_running_loop().time
        if clock() < self._works_until:
            return
        gives_way_until = clock() + GIVES_WAY
        while self._in_flight() >= MANY and not needed():
            if clock() >= gives_way_until:
                self._works_until = clock() + WORKS
                return
            await asyncio.sleep(LOOK)
