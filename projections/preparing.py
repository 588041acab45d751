"""Judges messages and renders their rows of the audit index, in a process of its own: half of the work of a replay.

The process vouches only for messages that are right. The runner judges the others from their bytes, as if there was no
other process. So the two can never disagree about what is malformed.
"""

from collections.abc import Callable, Sequence

from eventstore.log.envelope import Recorded
from eventstore.log.judge import body, shape
from eventstore.log.keyring import Keyring
from eventstore.log.macs import EventKeys, Key, Keys
from eventstore.log.received import stored
from eventstore.log.upcast import TYPE_VERSION
from projections import bulk, events, usual
from projections.books import Judged, judged
from projections.prepared import Item, Prepared
from runtime.bus.bulk import Bytes
from runtime.bus.headers import parsed
from runtime.tasks import workers

Orders = tuple[dict[str, tuple[bytes, int | None]], str, int]
"""The event keys by id, each with the last position that it may sign; the key that signs, and since when."""


def items(messages: Sequence[Bytes], event_keys: EventKeys | None) -> list[Item | None]:
    """One for each message, given its headers and body as the server sent them. None: the runner has to judge it."""
    return [item(block, content, event_keys) for block, content in messages]


def item(block: bytes, content: bytes, event_keys: EventKeys | None) -> Item | None:
    try:
        known = usual.item(block, content, event_keys)
        if known is not None:
            return known
        recorded = stored(parsed(block) or {}, content, event_keys)
        if shape(recorded) is not None:
            return None
        copied = bulk.encoded([events.row(recorded)]) if is_complete(recorded) else b""
    except (KeyError, ValueError):
        return None
    headers, context = recorded.headers, recorded.context
    return (
        recorded.position,
        recorded.subject,
        headers["ce-time"],
        recorded.version,
        recorded.previous,
        recorded.digest,
        {name: headers[name] for name in ("ce-type", TYPE_VERSION, "ce-actor") if name in headers},
        (
            *(context.actor, context.credential, context.request),
            *(context.operation, context.causation, context.traceparent),
        ),
        copied,
    )


def is_complete(recorded: Recorded) -> bool:
    """Whether the row of an event does not depend on the state of its aggregate: who may see it follows from its
    subject.
    """
    return usual.owner(recorded.ref.project, recorded.ref.kind) is not None


def opened(message: Bytes, known: Item | None, event_keys: EventKeys | None) -> Judged:
    """A message, checked without its history. Raises KeyError or ValueError if no stream has sent it."""
    if known is None:
        return judged(stored(parsed(message[0]) or {}, message[1], event_keys))
    recorded = Prepared(known, message, event_keys)
    return recorded, body(recorded)


def orders_of(event_keys: EventKeys | None) -> Orders | None:
    """What another process has to know to check the MACs; None if the keys cannot be given to one. Raises as
    `Keyring.load`."""
    keys = event_keys.load() if isinstance(event_keys, Keyring) else event_keys
    if not isinstance(keys, Keys):
        return None
    return {id_: (key.secret, key.until) for id_, key in keys.by_id.items()}, keys.signer, keys.since


def answering(orders: Orders) -> Callable[[Sequence[Bytes]], list[Item | None]]:
    """The function of the process that answers for messages."""
    known, signer, since = orders
    keys = Keys({id_: Key(secret, until) for id_, (secret, until) in known.items()}, signer, since)
    return lambda messages: items(messages, keys)


if __name__ == "__main__":
    workers.serve(answering)
