"""Which parked messages there are, and which of them are open: for the health check, the numbers and the list."""

import asyncio
from collections.abc import Mapping

from eventstore.log.jetstream import Unavailable
from eventstore.parking.parked import MORE
from eventstore.parking.parking import Parked, Parking, Status
from runtime import logs, subjects

log = logs.get(__name__)

#: Seconds until the stream is looked for again.
AGAIN = 1.0
#: Records that are listed: open ones, and closed ones (the newest of them). Each source has room for 1,000 open ones,
#: so there are more only where somebody else wrote them.
MOST_OPEN, MOST_CLOSED = 10_000, 10_000

Name = tuple[str, str]


class Index:
    """Where each record stands among the parked, and which are open. It follows the stream, and keeps so many."""

    def __init__(self) -> None:
        self._open: dict[Name, tuple[int, int]] = {}
        self._closed: dict[Name, tuple[int, int, Status]] = {}
        self._more: dict[str, int] = {}
        self._unlisted = 0

    @property
    def open(self) -> int:
        """Open records: messages that are kept until somebody has seen them."""
        return sum(key != MORE for _, key in self._open) if self._more else len(self._open)

    @property
    def total(self) -> int:
        """Records that are known, open and closed."""
        return self.open + sum(key != MORE for _, key in self._closed)

    @property
    def more(self) -> int:
        """Messages that found no room, and were only counted."""
        return sum(self._more.values()) + self._unlisted

    async def run(self, parking: Parking) -> None:
        """Keep up, for ever."""
        while True:
            self._unlisted = 0
            try:
                async for batch in parking.follow():
                    for position, record in batch:
                        self.take(position, record)
            except Unavailable as error:
                log.warning("parked messages cannot be read now", error=str(error))
            await asyncio.sleep(AGAIN)

    def take(self, position: int, record: Parked) -> None:
        """A record as it stands at a position. One that is known already changes nothing, nor one that nobody can name:
        it is none of ours, and nobody could ever close it.
        """
        name = (record.source, record.key)
        if not all(map(subjects.TOKEN.fullmatch, name)):
            log.warning("a record of a parked message has a name that none can have", position=position)
            return
        closed = self._closed.get(name)
        first, newest = (closed or self._open.get(name) or (position, 0))[:2]
        if position <= newest:
            return
        if closed is not None and record.key != MORE:  # it stays so
            self._closed[name] = (first, position, closed[2])
        elif not record.open:
            self._close(record, first, position)
        elif name in self._open or len(self._open) < MOST_OPEN:
            self._closed.pop(name, None)
            self._open[name] = (first, position)
            if record.key == MORE:
                self._more[record.source] = record.count
        else:
            self._unlisted += 1

    def close(self, record: Parked) -> None:
        """A record that this process closed counts as closed before the stream says so."""
        places = self._open.get((record.source, record.key))
        if places is not None and not record.open:
            self._close(record, *places)

    def _close(self, record: Parked, first: int, newest: int) -> None:
        name = (record.source, record.key)
        self._open.pop(name, None)
        if record.key == MORE:
            self._more.pop(record.source, None)
        self._closed[name] = (first, newest, record.status)
        if len(self._closed) > MOST_CLOSED:
            del self._closed[next(iter(self._closed))]

    def places(self, status: Status, source: str | None, after: int, most: int) -> list[tuple[int, int]]:
        """Of up to `most` records behind a place: their own place, and where their newest state stands."""
        if status is Status.OPEN:
            listed = [places for name, places in self._open.items() if source in (None, name[0])]
        else:
            listed = [
                (first, newest)
                for name, (first, newest, is_) in self._closed.items()
                if is_ is status and source in (None, name[0])
            ]
        return sorted(places for places in listed if places[0] > after)[:most]

    def counts(self) -> Mapping[str, int]:
        """How many are open, by source."""
        found: dict[str, int] = {}
        for source, key in self._open:
            found[source] = found.get(source, 0) + (key != MORE)
        return found

    def more_by_source(self) -> Mapping[str, int]:
        """How many found no room, by source."""
        return dict(self._more)
