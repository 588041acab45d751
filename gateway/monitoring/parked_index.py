"""An index of parked messages, open and closed: for the health check, the metrics and the list."""

import asyncio
from collections.abc import Mapping

from eventstore.log.jetstream import Unavailable
from eventstore.parking.parked import MORE
from eventstore.parking.parking import Parked, Parking, Status
from runtime import logs, subjects

log = logs.get(__name__)

#: Seconds until the next try to read the stream.
AGAIN = 1.0
#: Maximum number of listed records: open ones, and the newest closed ones. Each source has room for 1,000 open ones, so
#: there are more only if somebody else wrote them.
MOST_OPEN, MOST_CLOSED = 10_000, 10_000

Name = tuple[str, str]


class Index:
    """The position of each record, and whether it is open. It follows the stream, and has a bounded size."""

    def __init__(self) -> None:
        self._open: dict[Name, tuple[int, int]] = {}
        self._closed: dict[Name, tuple[int, int, Status]] = {}
        self._more: dict[str, int] = {}
        self._unlisted = 0

    @property
    def open(self) -> int:
        """The number of open records."""
        return sum(key != MORE for _, key in self._open) if self._more else len(self._open)

    @property
    def total(self) -> int:
        """The number of records in the index, open and closed."""
        return self.open + sum(key != MORE for _, key in self._closed)

    @property
    def more(self) -> int:
        """The number of messages without room, which were only counted."""
        return sum(self._more.values()) + self._unlisted

    async def run(self, parking: Parking) -> None:
        """Follow the stream, for ever."""
        while True:
            self._unlisted = 0
            try:
                async for batch in parking.follow():
                    for position, record in batch:
                        self.apply(position, record)
            except Unavailable as error:
                log.warning("parked messages cannot be read now", error=str(error))
            await asyncio.sleep(AGAIN)

    def apply(self, position: int, record: Parked) -> None:
        """Apply a record at a position of the stream. Known records, and records with invalid names, are ignored.

        Handlers write no invalid names, and such a record could never be closed.
        """
        name = (record.source, record.key)
        if not all(map(subjects.TOKEN.fullmatch, name)):
            log.warning("a record of a parked message has an invalid name", position=position)
            return
        closed = self._closed.get(name)
        first, newest = (closed or self._open.get(name) or (position, 0))[:2]
        if position <= newest:
            return
        if closed is not None and record.key != MORE:  # a closed record stays closed
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
        """Note a record that this process has closed, before the stream delivers it."""
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
        """Up to `most` records after a position: the position of each, and that of its newest state."""
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
        """The number of open records, by source."""
        found: dict[str, int] = {}
        for source, key in self._open:
            found[source] = found.get(source, 0) + (key != MORE)
        return found

    def more_by_source(self) -> Mapping[str, int]:
        """The number of messages without room, by source."""
        return dict(self._more)
