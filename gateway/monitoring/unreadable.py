"""Malformed messages that are not stored, counted for the whole platform: for the health check and the metrics.

This gateway hears heartbeats, and what processes say of themselves. Of commands, registrations and questions each
handlers process counts its own; one of them answers a health check, so what each said last is remembered. Nodes tell
how many documents they cannot read.
"""

from collections.abc import Mapping

from pydantic import TypeAdapter

from gateway.monitoring.heartbeats import HEARTBEATS, Heartbeats
from gateway.monitoring.roles import STATUS
from runtime.bus.malformed import Counted

#: How the documents are called that nodes cannot read.
WANTED = "wanted"
#: Handlers processes that are remembered, and sources of each.
MOST_PROCESSES, MOST_SOURCES = 32, 16

_TOLD = TypeAdapter(dict[str, Counted])


class Unreadable:
    """What handlers said."""

    def __init__(self) -> None:
        self._told: dict[str, Mapping[str, Counted]] = {}

    def hear(self, process: object, said: object) -> None:
        """Take in what a handlers process counted since it started. Raises ValueError for nonsense."""
        told = _TOLD.validate_python(said)
        if len(told) > MOST_SOURCES:
            raise ValueError("too many sources")
        name = str(process)[:64]
        self._told.pop(name, None)
        self._told[name] = told
        if len(self._told) > MOST_PROCESSES:
            del self._told[next(iter(self._told))]

    def all(self, heartbeats: Heartbeats) -> dict[str, Counted]:
        """By source: how many, and the newest. All handlers hear the heartbeats: theirs are left out."""
        found: dict[str, Counted] = {}
        for told in self._told.values():
            for source, counted in told.items():
                if source != HEARTBEATS:
                    found[source] = sum_of(found.get(source), counted)
        for source in (HEARTBEATS, STATUS):
            if (heard := heartbeats.malformed.of(source)) is not None:
                found[source] = heard
        if (unread := heartbeats.cannot_read()) is not None:
            found[WANTED] = unread
        return found


def sum_of(one: Counted | None, other: Counted) -> Counted:
    """Both together; of the newest message, what is said of it."""
    if one is None:
        return other
    newest = max(one, other, key=lambda each: each.last_at)
    return newest.model_copy(update={"count": one.count + other.count})
