"""One reader of the log for all feeds.

It reads the log once, makes the JSON of each event once, and keeps the newest frames in a ring. A feed whose position
is in the ring takes its frames from there, and is woken by the events of its filters only. A feed that is further
behind reads the log alone, until it has come to the ring. Both read with `eventstore/log/follow.py`, so they see the
same messages in the same order.

- The ring has every message after `start` up to `end`. So a feed that has all of its items up to a position in between
  misses nothing when it goes on here.
- A feed that waits here has no item up to `end`: otherwise it would have been woken.
- If the reader fails, or ends, the ring is empty, and every feed reads alone.

The reader starts with the first feed, and ends LINGER seconds after the last one.
"""

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import NamedTuple

from nats.aio.client import Client
from pydantic_core import to_json

from eventstore.log.envelope import Recorded
from eventstore.log.follow import follow
from eventstore.log.store import EventStore, Unavailable
from runtime import logs, subjects
from runtime.tasks.tasks import end

log = logs.get(__name__)

#: Maximum number of messages in the ring, and of their bytes.
MOST, MOST_BYTES = 4096, 16 * 1024 * 1024
#: Seconds that the reader goes on without feeds, and seconds until it starts again after it has failed.
LINGER, AGAIN = 60.0, 1.0
#: The number of messages that are removed from the ring in one step.
_STEP = 256

Names = tuple[str, ...]
"""The filters that a subject matches: all events, those of its project, and its own."""


class Frame(NamedTuple):
    """One message, ready for all feeds. `text`: the frame without the end, which has the position before."""

    position: int
    names: Names
    text: bytes

    def after(self, previous: int) -> bytes:
        """The whole frame for a feed whose item before is at position `previous`."""
        return b'%b,"prev":%d}\n\n' % (self.text, previous)


def frame(recorded: Recorded) -> Frame:
    """The frame of one message."""
    event = recorded.cloud_event()
    kind = " ".join(str(event.get("type", "")).split()).replace("\0", "").encode()
    text = b"id: %d\nevent: %b\ndata: %b" % (recorded.position, kind, to_json(event)[:-1])
    return Frame(recorded.position, names_of(recorded.subject), text)


def names_of(subject: str) -> Names:
    """The filters of feeds that a subject matches."""
    try:
        project, _, _ = subjects.parse_event(subject)
        return (subjects.events(), subjects.events(project), subject)
    except ValueError:  # (a message on another subject of the stream)
        return (subjects.events(), subject)


class Place:
    """Where a feed is: it has all of its items up to `position`. `changed` is called when there may be more."""

    def __init__(self, filters: Iterable[str], position: int, changed: Callable[[], object]) -> None:
        self.filters = frozenset(filters)
        self.position = position
        self.changed = changed


class Hub:
    """The reader, and the ring. It has all messages after `start` (None: there is no ring) up to `end`."""

    def __init__(self, nc: Client, store: EventStore) -> None:
        self._nc = nc
        self._store = store
        self.start: int | None = None
        self.end = 0
        self._positions: list[int] = []
        self._frames: list[Frame] = []
        self._bytes = 0
        self._feeds: set[Place] = set()
        self._waiting: dict[str, set[Place]] = {}
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.TimerHandle | None = None

    def enter(self, place: Place) -> None:
        """A feed begins, or goes on. The reader runs from now on."""
        self._feeds.add(place)
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def leave(self, place: Place) -> None:
        """A feed has ended."""
        self.settle(place)
        self._feeds.discard(place)
        if not self._feeds and self._ending is None:
            self._ending = asyncio.get_running_loop().call_later(LINGER, self._stop)

    async def close(self) -> None:
        """End the reader."""
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if self._task is not None:
            await end([self._task])

    def has(self, place: Place) -> bool:
        """Whether a feed can go on here: the ring has its position, and all that follows."""
        return self.start is not None and self.start <= place.position <= self.end

    def take(self, place: Place, most: int) -> list[Frame]:
        """The next frames of a feed that can go on here, at most so many. Its position becomes that of the last one; or
        the end, if it has all of them.
        """
        found: list[Frame] = []
        for index in range(bisect_right(self._positions, place.position), len(self._frames)):
            one = self._frames[index]
            if not place.filters.isdisjoint(one.names):
                found.append(one)
                if len(found) == most:
                    place.position = one.position
                    return found
        place.position = max(place.position, self.end)
        return found

    def wait(self, place: Place) -> None:
        """Call `changed` of a feed once, when it may have an item after its position, or can no longer go on here.

        It has taken all of its items. From now on its position is that of the end of the ring.
        """
        for name in place.filters:
            self._waiting.setdefault(name, set()).add(place)

    def settle(self, place: Place, position: int | None = None) -> None:
        """A feed does not wait any more. If it did, it has no item up to `position` (the end), where it is now."""
        if not self._waits(place):
            return
        for name in place.filters:
            waiting = self._waiting.get(name, set())
            waiting.discard(place)
            if not waiting:
                self._waiting.pop(name, None)
        place.position = max(place.position, self.end if position is None else position)

    def _waits(self, place: Place) -> bool:
        return any(place in self._waiting.get(name, ()) for name in place.filters)

    def _add(self, batch: list[Recorded]) -> None:
        for recorded in batch:
            made = frame(recorded)
            for place in [place for name in made.names for place in self._waiting.get(name, ())]:
                self.settle(place, made.position - 1)
                place.changed()
            self._positions.append(made.position)
            self._frames.append(made)
            self._bytes += len(made.text)
            self.end = made.position
        while len(self._frames) > MOST + _STEP:
            self._drop(_STEP)
        while self._bytes > MOST_BYTES:
            self._drop(1)

    def _drop(self, count: int) -> None:
        self._bytes -= sum(len(one.text) for one in self._frames[:count])
        self.start = self._positions[count - 1]
        del self._positions[:count], self._frames[:count]

    def _clear(self) -> None:
        """There is no ring any more: every feed goes on alone, from where it is."""
        for place in [*self._feeds]:
            self.settle(place)
        self.start = None
        self._positions, self._frames, self._bytes = [], [], 0
        for place in [*self._feeds]:
            place.changed()

    def _stop(self) -> None:
        self._ending = None
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._read()
                except Unavailable as error:  # OtherStream too: the feeds find it out themselves
                    log.warning("the reader of all feeds starts again", error=str(error))
                except Exception:
                    log.exception("the reader of all feeds failed, and starts again")
                self._clear()
                await asyncio.sleep(AGAIN)
        finally:
            self._clear()

    async def _read(self) -> None:
        """Read the log from its end on. Raises Unavailable, OtherStream."""
        self.end = await self._store.last_position()
        self.start = self.end
        for place in [*self._feeds]:
            place.changed()
        source = follow(self._nc, self.end, [subjects.events()], event_keys=self._store.event_keys)
        async with contextlib.aclosing(source) as batches:
            async for batch in batches:
                self._add(batch)
