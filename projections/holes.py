"""Positions that a delivery left out. The checkpoint never goes back, so what is left out would be missing for ever."""

from collections.abc import Sequence

from eventstore.log.store import EventStore
from projections.books import Judged, judged
from runtime import logs

log = logs.get(__name__)


async def complete(store: EventStore, after: int, batch: Sequence[Judged]) -> Sequence[Judged]:
    """The batch; if positions are missing, what the log has there, read again. Raises Unavailable."""
    last = batch[-1][0].position
    if last - after == len(batch):
        return batch
    found = [recorded for recorded in await store.between(after, last) if recorded.position <= last]
    if len(found) <= len(batch):
        return batch  # the log has no message there
    log.warning("messages were not delivered, and read again", after=after, last=last)
    return [judged(recorded) for recorded in found]
