"""Which parked messages there are, and which of them are open: for the health check, the numbers and the list."""

import asyncio
from collections.abc import Mapping

from eventstore.jetstream import Unavailable
from eventstore.parking import Parked, Parking, Status
from runtime import logs

log = logs.get(__name__)

#: Seconds until the stream is looked for again.
AGAIN = 1.0


class Index:
    """Where each record stands among the parked, and which are open. It follows the stream."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], tuple[int, int, Status]] = {}
        self.open = 0

    async def run(self, parking: Parking) -> None:
        """Keep up, for ever."""
        while True:
            try:
                async for batch in parking.follow():
                    for position, record in batch:
                        self.take(position, record)
            except Unavailable as error:
                log.warning("parked messages cannot be read now", error=str(error))
            await asyncio.sleep(AGAIN)

    def take(self, position: int, record: Parked) -> None:
        """A record as it stands at a position. One that is known already changes nothing."""
        name = (record.source, record.key)
        first, newest, status = self._places.get(name, (position, 0, Status.RETRIED))
        if position > newest:
            self._put(name, first, position, status if newest and status is not Status.OPEN else record.status)

    def close(self, record: Parked) -> None:
        """A record that this process closed counts as closed before the stream says so."""
        name = (record.source, record.key)
        if name in self._places and not record.open:
            first, newest, _ = self._places[name]
            self._put(name, first, newest, record.status)

    def _put(self, name: tuple[str, str], first: int, newest: int, status: Status) -> None:
        before = self._places.get(name)
        self.open += (status is Status.OPEN) - (before is not None and before[2] is Status.OPEN)
        self._places[name] = (first, newest, status)

    def places(self, status: Status, source: str | None, after: int, most: int) -> list[tuple[int, int]]:
        """Of up to `most` records behind a place: their own place, and where their newest state stands."""
        found: list[tuple[int, int]] = []
        for (of, _), (first, newest, is_) in self._places.items():
            if first > after and is_ is status and source in (None, of):
                found.append((first, newest))
                if len(found) == most:
                    break
        return found

    def counts(self) -> Mapping[str, int]:
        """How many are open, by source."""
        found: dict[str, int] = {}
        for (source, _), (_, _, status) in self._places.items():
            if status is Status.OPEN:
                found[source] = found.get(source, 0) + 1
        return found
