"""What a caller's key was used for: asked of the log where an append says that it was used."""

from domain.idempotency import OperationKeyed, reused_for
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.store import Change, EventStore, Tip
from runtime import subjects


def alone(key: str) -> str:
    """The filter on which nothing may stand before a key, or an id, is used."""
    return subjects.events(id_=key)


def claim(key: str, used: OperationKeyed, project: str, last: int) -> Change:
    """The event that says what a key is used for. It is refused where the key, or a resource of its id, exists.

    `last`: the position of the last message that stands there and is no event.
    """
    return Change(Tip(Ref(project, subjects.OPERATION, key), position=last), [used], alone(key))


async def refuse_reuse(store: EventStore, key: str, ref: Ref) -> int:
    """Raise KeyReused where a key stands for another resource than this one. Raises Unavailable.

    The position of the last message that stands there, which is no event where the key was never used.
    """
    first, last = await store.first(alone(key))
    if first is not None:
        kind, id_ = resource(first)
        if (kind, id_) != (ref.kind, ref.id):
            raise reused_for(kind, id_)
    return last


def resource(first: Recorded) -> tuple[str, str]:
    """The kind and the id of what a key created, by the first event that stands under it."""
    if first.ref.kind == subjects.OPERATION:
        used = first.event
        if isinstance(used, OperationKeyed):
            return used.kind, used.resource
    return first.ref.kind, first.ref.id
