"""Idempotency keys of callers: the append that uses a key, and what a used key was used for."""

from domain.idempotency import OperationKeyed, reused_for
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.store import Change, EventStore, Tip
from runtime import subjects


def alone(key: str) -> str:
    """The subject filter of all events of an id, in any project and kind. A new key or id must have none."""
    return subjects.events(id_=key)


def claim(key: str, used: OperationKeyed, project: str, last: int) -> Change:
    """The change that records what a key is used for. The server refuses it if there are events with the key's id.

    `last`: the position of the last malformed message on these subjects; 0 if there is none.
    """
    return Change(Tip(Ref(project, subjects.OPERATION, key), position=last), [used], alone(key))


async def refuse_reuse(store: EventStore, key: str, ref: Ref) -> int:
    """Raises KeyReused if the key was used for another resource than `ref`, or Unavailable.

    Returns the position of the last message on the key's subjects. If the key was never used, that is a malformed one.
    """
    first, last = await store.first(alone(key))
    if first is not None:
        kind, id_ = resource(first)
        if (kind, id_) != (ref.kind, ref.id):
            raise reused_for(kind, id_)
    return last


def resource(first: Recorded) -> tuple[str, str]:
    """The kind and the id of the resource that a key created, by the first event with the key's id."""
    if first.ref.kind == subjects.OPERATION:
        used = first.event
        if isinstance(used, OperationKeyed):
            return used.kind, used.resource
    return first.ref.kind, first.ref.id
