"""When the past may work: it gives way to the read models of the present, which answer most reads.

The past applies messages that the present has applied, and only while the present has nothing to do. So a command, and
a reader who waits for it, never wait for the past. If the present is never idle, the past falls behind by LATEST
seconds; then it works beside the present, half of the time, until it has caught up. It reads nothing before its turn.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from time import monotonic

from nats.aio.client import Client

from eventstore.log.macs import EventKeys
from eventstore.log.store import EventStore
from projections.activity import Activity
from projections.books import Judged, judged
from projections.position import Position

#: Seconds without a message of the present until the past begins.
QUIET = 0.05
#: Seconds that the past is behind until it does not wait for the present any more.
LATEST = 10.0
#: Messages of one turn, and of one while the past is at least FAR messages behind.
SLICE, LARGE, FAR = 64, 256, 2048
#: Seconds after which the positions are compared, even if nobody said that one has changed.
LOOK_AGAIN = 5.0


class Turns:
    """The messages for the past. `present`: the position of the read models of the present."""

    def __init__(self, nc: Client, present: Position, activity: Activity, event_keys: EventKeys | None = None) -> None:
        self._store = EventStore(nc, event_keys)
        self._present = present
        self._activity = activity
        #: since when the past is behind
        self._since: float | None = None

    async def messages(self, after: int) -> AsyncGenerator[Sequence[Judged], None]:
        """The messages after a position, in their order, for ever: a slice in each turn. Raises Unavailable."""
        while True:
            count, late = await self.turn(after)
            began, goal = monotonic(), self._present.value
            found = await self._store.read(after, limit=count)
            batch = [judged(each) for each in found if each.position <= self._present.value]
            if batch:
                yield batch
                after = batch[-1][0].position
                if after >= goal:  # as new as the present was
                    self._since = None
            spent = monotonic() - began
            await asyncio.sleep(max(spent, 0.0 if batch else QUIET) if late or not batch else 0.0)

    async def turn(self, after: int) -> tuple[int, bool]:
        """Wait until the past, which is at position `after`, may work. Returns for how many messages, and whether it is
        late.
        """
        while True:
            behind = self._present.value - after
            if behind <= 0:
                self._since = None
                await self._present.moved(LOOK_AGAIN)
                continue
            now = monotonic()
            self._since = self._since or now
            late = now - self._since >= LATEST
            if not self._activity.busy and (late or self._activity.quiet >= QUIET):
                return (LARGE if behind >= FAR else SLICE), late
            await asyncio.sleep(QUIET / 10 if late else max(QUIET - self._activity.quiet, 0.001))
