"""Keys of callers: one key is one operation is one resource, for ever.

A create with a key has an id that follows from the key. Where the caller chose no other id, it is the new resource's
own, and nothing more is needed. Where the caller chose one, the key is an aggregate of this kind, with the one event
that says what it was used for, in the same append as the resource's first event.
"""

from pydantic import AwareDatetime

from domain.base import Event, Message
from domain.known import KeyReused


class OperationKeyed(Event):
    """The key stands for this operation, which created this resource."""

    TOPIC = "nebula.operation.OperationKeyed"
    at: AwareDatetime
    operation_id: str
    kind: str
    resource: str


class Key(Message):
    """A key as its event tells it."""

    operation_id: str
    kind: str
    resource: str


def evolve(key: Key | None, event: Event) -> Key | None:
    """The state after an event. A key is used once."""
    if key is None and isinstance(event, OperationKeyed):
        return Key(operation_id=event.operation_id, kind=event.kind, resource=event.resource)
    return key


def reused_for(kind: str, id_: str) -> KeyReused:
    """The refusal of a key that created another resource."""
    return KeyReused(f"to create {kind} {id_}")
