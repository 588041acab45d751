"""When to look at which node again, so that a look costs nothing for nodes that need none."""

import heapq


class Looks:
    """One time for each node that has to be looked at again, in seconds of any clock. A node that was looked at has
    none until it gets one.
    """

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []

    def add(self, node_id: str, at: float = 0.0) -> None:
        """Look at a node at a time, or earlier if it has an earlier one. 0: at the next look."""
        known = self._times.get(node_id)
        if known is None or at < known:
            self._times[node_id] = at
            heapq.heappush(self._queue, (at, node_id))

    def due(self, now: float) -> list[str]:
        """The nodes to look at now, the earliest first."""
        found = []
        while self._queue and self._queue[0][0] <= now:
            at, node_id = heapq.heappop(self._queue)
            if self._times.get(node_id) == at:
                del self._times[node_id]
                found.append(node_id)
        return found
