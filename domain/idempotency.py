"""Idempotency keys of callers: one key belongs to one operation and one resource, for ever.

An id is derived from the key of a create. If the caller chose no id, the new resource gets the derived id, and nothing
else is stored. If the caller chose an id, the key is an aggregate of its own. Its only event says what the key was used
for, and is in the same append as the resource's first event.
"""

from pydantic import AwareDatetime

from domain.accepted_requests import KeyReused
from domain.base import Event, Message


class OperationKeyed(Event):
    """The key was used for this operation, which created this resource."""

    TOPIC = "nebula.operation.OperationKeyed"
    at: AwareDatetime
    operation_id: str
    kind: str
    resource: str


class Key(Message):
    """The state of a key."""

    operation_id: str
    kind: str
    resource: str


def evolve(key: Key | None, event: Event) -> Key | None:
    """The state after an event. Only the first event counts."""
    if key is None and isinstance(event, OperationKeyed):
        return Key(operation_id=event.operation_id, kind=event.kind, resource=event.resource)
    return key


def reused_for(kind: str, id_: str) -> KeyReused:
    """The refusal of a key that was used to create another resource."""
    return KeyReused(f"to create {kind} {id_}")
