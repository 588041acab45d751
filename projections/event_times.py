"""Which positions events of a range of times can have: so a search by time need not look at all others.

Events are stored nearly in the order of their times. Clocks differ, and may be wrong, so nothing follows from the order
alone: for each block of positions the least and the greatest time are kept. A block that is wholly in the past never
changes.
"""

import asyncio
from array import array
from datetime import UTC, datetime, timedelta

from projections.database import Pool, ReadModelsUnavailable, fetch
from projections.marks import WIDTH

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: Times of a block without events: no time is in it.
_NONE = (2**62, -(2**62))


class EventTimes:
    """The times of all blocks that are known. It needs 16 bytes for each."""

    def __init__(self) -> None:
        self._least = array("q")
        self._greatest = array("q")
        self._lock = asyncio.Lock()

    async def positions(
        self, pool: Pool, since: datetime | None, until: datetime | None, past: Pool | None = None
    ) -> tuple[int, int, int]:
        """The first and the last position that events of these times can have (inclusive), up to the position of the
        index, which is the third value.

        `past`: the pool of the past, which knows old blocks without a look at their events. Raises
        ReadModelsUnavailable.
        """
        async with self._lock:
            if past is not None and not self._least:
                await self._ask(past)
            least, greatest, reached = await self._all(pool)
        first, last = 1, reached
        if since is not None:
            at = microseconds(since)
            block = next((number for number, value in enumerate(greatest) if value >= at), None)
            first = reached + 1 if block is None else block * WIDTH + 1
        if until is not None:
            at = microseconds(until)
            block = next((number for number in range(len(least) - 1, -1, -1) if least[number] <= at), None)
            last = 0 if block is None else min(reached, (block + 1) * WIDTH)
        return first, last, reached

    async def _ask(self, past: Pool) -> None:
        """All blocks that the past has wholly."""
        try:
            found = await fetch(
                past,
                """SELECT block, min(least) AS least, max(greatest) AS greatest FROM counts
                   WHERE (block + 1) * %(width)s <= c.position GROUP BY 1""",
                {"width": WIDTH},
                order="block",
            )
        except ReadModelsUnavailable:
            return
        times = {row["block"]: (microseconds(row["least"]), microseconds(row["greatest"])) for row in found.rows}
        for block in range(found.position // WIDTH):
            low, high = times.get(block, _NONE)
            self._least.append(low)
            self._greatest.append(high)

    async def _all(self, pool: Pool) -> tuple["array[int]", "array[int]", int]:
        """The times of all blocks, of which those that cannot change any more are kept."""
        known = len(self._least)
        found = await fetch(
            pool,
            """SELECT (position - 1) / %(width)s AS block, min(time) AS least, max(time) AS greatest
               FROM events WHERE position > %(after)s GROUP BY 1""",
            {"width": WIDTH, "after": known * WIDTH},
            order="block",
            planned=False,
        )
        times = {row["block"]: (microseconds(row["least"]), microseconds(row["greatest"])) for row in found.rows}
        least, greatest = array("q", self._least), array("q", self._greatest)
        for block in range(known, max(times, default=known - 1) + 1):
            low, high = times.get(block, _NONE)
            least.append(low)
            greatest.append(high)
        whole = min(len(least), found.position // WIDTH)
        if whole > known:
            self._least, self._greatest = least[:whole], greatest[:whole]
        return least, greatest, found.position


def microseconds(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND
