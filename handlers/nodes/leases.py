"""Who has the lease of each node, told on the node's own subject, for daemons that start while handlers are away.

The log says it as well, but nodes do not read the log. A note is stored before the daemon it names is told that it has
the lease. So while a note names an earlier daemon, no later one works. Of a note that tells of a later lease the log is
asked whether it was ever given: anybody's numbers can be high.
"""

from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from domain import node
from domain.contract import LeaseNote
from eventstore.documents import Documents
from eventstore.log.envelope import Ref
from eventstore.log.store import Conflict, EventStore
from runtime import subjects

ATTEMPTS = 8


class Leases:
    """Keeps the notes. `newest`: which lease of a node, by its id, was given last."""

    def __init__(self, documents: Documents, newest: Callable[[str], Awaitable[int]]) -> None:
        self._documents = documents
        self._newest = newest

    async def note(self, given: LeaseNote) -> None:
        """Replace the node's note, unless it tells of a later lease. Raises Unavailable, Conflict."""
        subject = subjects.lease(given.node)
        for attempt in range(ATTEMPTS):
            there = await self._documents.all(subject)
            known = read(there[0].body) if there else None
            if known == given:
                return
            if known is not None and given.lease < known.lease <= await self._newest(given.node):
                return
            try:
                last = there[0].position if there else 0
                await self._documents.put(subject, given.model_dump_json().encode(), last=last)
                return
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise


async def newest_lease(store: EventStore, node_id: str) -> int:
    """The number of the lease that was given last, as the log's leader knows it; 0 where there was none."""
    found = (await store.load(Ref(subjects.SYSTEM, "node", node_id), node.evolve, fresh=True)).state
    return found.lease if found is not None else 0


def read(body: bytes) -> LeaseNote | None:
    """The note; None where it makes no sense."""
    try:
        return LeaseNote.model_validate_json(body)
    except ValidationError:
        return None
