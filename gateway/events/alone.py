"""A feed that reads the log alone: it is further behind than the ring of the hub, or there is no ring."""

import asyncio
import contextlib
from collections.abc import Callable

from eventstore.log.envelope import Recorded
from eventstore.log.follow import follow
from eventstore.log.store import EventStore, Unavailable
from gateway.hub import Hub, Place
from gateway.state import Gateway

#: Seconds to query the log for a position; after that it is not known.
PATIENCE = 2.0
#: Seconds without a message after which a feed tries to join the hub: at first, and later.
IDLE, LATER = 0.05, 1.0


class Alone:
    """Reads the log after the position of a feed. A task of its own has the consumer, and deletes it at the end."""

    def __init__(self, gateway: Gateway, place: Place) -> None:
        self._gateway = gateway
        self._batches: asyncio.Queue[list[Recorded]] = asyncio.Queue(maxsize=1)
        self._pumping = asyncio.create_task(pump(gateway, place, self._batches))
        self._pumping.add_done_callback(lambda _: place.changed())
        self._coming = self._expect(place.changed)
        self.idle = IDLE

    def _expect(self, changed: Callable[[], object]) -> asyncio.Task[list[Recorded]]:
        coming = asyncio.create_task(self._batches.get())
        coming.add_done_callback(lambda _: changed())
        return coming

    def ended(self) -> bool:
        """Whether there will be no more messages: the stream was lost or replaced."""
        return self._pumping.done() and not self._coming.done()

    def take(self, place: Place) -> list[Recorded]:
        """The messages that have come. The position of the feed becomes that of the last one."""
        if not self._coming.done():
            return []
        found = self._coming.result()
        place.position = max(place.position, found[-1].position)
        self._coming = self._expect(place.changed)
        self.idle = IDLE
        return found

    def close(self) -> None:
        self._coming.cancel()
        self._gateway.end(self._pumping)


async def pump(gateway: Gateway, place: Place, batches: "asyncio.Queue[list[Recorded]]") -> None:
    """Put batches into the queue, at the pace of the reader."""
    keys, filters = gateway.store.event_keys, sorted(place.filters)
    source = follow(gateway.nc, place.position, filters, event_keys=keys, again=True)
    async with contextlib.aclosing(source) as found:
        async for batch in found:
            await batches.put(batch)


async def join(store: EventStore, hub: Hub, place: Place) -> bool:
    """Whether a feed can go on in the hub: the log has no item for it between its position and the ring.

    The stream's leader says so, which never lags. The position of the feed becomes one of the ring.
    """
    if hub.start is None:
        return False
    start, end, position = hub.start, hub.end, place.position
    try:
        async with asyncio.timeout(PATIENCE):
            found = [await store.next_of(filter_, position) for filter_ in sorted(place.filters)]
    except (Unavailable, TimeoutError):
        return False
    upto = min([end, *(one.position - 1 for one in found if one is not None)])
    if upto >= start and place.position == position:
        place.position = max(position, upto)
    return hub.has(place)


async def searched_up_to(store: EventStore, after: int, filters: list[str]) -> int | None:
    """A position up to which a feed has no item after `after`.

    None if it has one, if the log does not answer, or if it is the feed of several projects.
    """
    if len(filters) > 1:
        return None
    try:
        async with asyncio.timeout(PATIENCE):
            end = await store.last_position()
            newest = await store.newest(filters[0])
    except (Unavailable, TimeoutError):
        return None
    return end if newest is None or newest.position <= after else None
