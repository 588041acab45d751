"""A priority queue of due times, so that a look costs nothing for ids that are not due yet."""

import heapq
from datetime import datetime


class Due:
    """One time for each id. An id that is due stays due until its time is set again."""

    def __init__(self) -> None:
        self._times: dict[str, datetime] = {}
        self._queue: list[tuple[datetime, str]] = []
        self._over: dict[str, None] = {}

    def set(self, id_: str, at: datetime | None) -> None:
        """Set the time of an id; None removes it."""
        if self._times.get(id_) == at:
            return
        self._over.pop(id_, None)
        if at is None:
            del self._times[id_]
            return
        self._times[id_] = at
        heapq.heappush(self._queue, (at, id_))
        if len(self._queue) > 2 * len(self._times) + 64:  # most entries are outdated
            self._queue = [(time, each) for each, time in self._times.items() if each not in self._over]
            heapq.heapify(self._queue)

    def by(self, at: datetime) -> list[str]:
        """The ids that are due at this time, the earliest first."""
        while self._queue and self._queue[0][0] <= at:
            time, id_ = heapq.heappop(self._queue)
            if self._times.get(id_) == time:
                self._over[id_] = None
        return list(self._over)

    def copied(self) -> list[tuple[str, datetime]]:
        """All ids with their times."""
        return list(self._times.items())
