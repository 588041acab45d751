"""Counts of malformed messages that are not stored, for the whole platform: for the health check and the metrics.

This gateway counts heartbeats and reports of processes. Each handlers process counts commands, registrations and
questions. Only one of them answers a health check, so the last counts of each process are kept. Nodes report how many
documents they cannot read.
"""

from collections.abc import Mapping

from pydantic import TypeAdapter

from gateway.monitoring.heartbeats import HEARTBEATS, Heartbeats
from gateway.monitoring.roles import STATUS
from runtime.bus.malformed import Counted

#: The source of documents that nodes cannot read.
WANTED = "wanted"
#: The source of questions that nodes refused.
ASKS = "asks"
#: Maximum number of handlers processes, and of sources of each.
MOST_PROCESSES, MOST_SOURCES = 32, 16

_COUNTS = TypeAdapter(dict[str, Counted])


class Unreadable:
    """The last counts of each handlers process."""

    def __init__(self) -> None:
        self._counts: dict[str, Mapping[str, Counted]] = {}

    def note(self, process: object, sent: object) -> None:
        """Store the counts of a handlers process since its start. Raises ValueError if they are invalid."""
        counts = _COUNTS.validate_python(sent)
        if len(counts) > MOST_SOURCES:
            raise ValueError("too many sources")
        name = str(process)[:64]
        self._counts.pop(name, None)
        self._counts[name] = counts
        if len(self._counts) > MOST_PROCESSES:
            del self._counts[next(iter(self._counts))]

    def all(self, heartbeats: Heartbeats) -> dict[str, Counted]:
        """The count and the newest message, by source. Heartbeats are counted only by the gateway itself."""
        found: dict[str, Counted] = {}
        for counts in self._counts.values():
            for source, counted in counts.items():
                if source != HEARTBEATS:
                    found[source] = sum_of(found.get(source), counted)
        for source in (HEARTBEATS, STATUS):
            if (received := heartbeats.malformed.of(source)) is not None:
                found[source] = received
        if (unread := heartbeats.cannot_read()) is not None:
            found[WANTED] = unread
        if (asked := heartbeats.refused_asks()) is not None:
            found[ASKS] = asked
        return found


def sum_of(one: Counted | None, other: Counted) -> Counted:
    """The sum of two counts, with the newest message of both."""
    if one is None:
        return other
    newest = max(one, other, key=lambda each: each.last_at)
    return newest.model_copy(update={"count": one.count + other.count})
