"""Stored events for the tests."""

from uuid import UUID

from eventsourcing.persistence import StoredEvent


def event(originator_id: UUID | str, version: int, state: bytes = b"{}", topic: str = "topic") -> StoredEvent:
    return StoredEvent(originator_id, version, topic, state)


def history(originator_id: UUID | str, first: int, last: int) -> list[StoredEvent]:
    return [event(originator_id, version, str(version).encode()) for version in range(first, last + 1)]
