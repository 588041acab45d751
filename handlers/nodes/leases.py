"""Lease notes: a document for each node that says which daemon has its lease, for daemons that start while handlers are
unavailable.

The log has that too, but nodes do not read the log. A note is stored before its daemon gets the lease in reply. So
while the note names an earlier daemon, no later one works. If a stored note names a later lease, handlers check in the
log whether that was granted, because a forged note can have any number.
"""

from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from domain import node
from domain.contract import LeaseNote
from eventstore.documents import Documents
from eventstore.log.envelope import Ref
from eventstore.log.store import Conflict, EventStore
from runtime import subjects
from runtime.node_keys import LEASE, NodeKeys

ATTEMPTS = 8


class Leases:
    """Stores the notes, with a MAC for their node. `newest`: the number of the latest lease of a node, by its id."""

    def __init__(
        self, documents: Documents, newest: Callable[[str], Awaitable[int]], keys: NodeKeys | None = None
    ) -> None:
        self._keys = keys
        self._documents = documents
        self._newest = newest

    async def note(self, note: LeaseNote) -> None:
        """Replace the node's note, unless the stored one names a later lease. Raises Unavailable, Conflict."""
        subject, body = subjects.lease(note.node), note.model_dump_json().encode()
        mac = self._keys.mac(note.node, LEASE, subject, body) if self._keys is not None else None
        for attempt in range(ATTEMPTS):
            stored = await self._documents.all(subject)
            known = read(stored[0].body) if stored else None
            if known == note and (mac is None or stored[0].mac == mac):
                return
            if known is not None and note.lease < known.lease <= await self._newest(note.node):
                return
            try:
                last = stored[0].position if stored else 0
                await self._documents.put(subject, body, last=last, mac=mac)
                return
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise


async def newest_lease(store: EventStore, node_id: str) -> int:
    """The number of the node's latest lease, read from the log's leader; 0 if there was none."""
    found = (await store.load(Ref(subjects.SYSTEM, "node", node_id), node.evolve, fresh=True)).state
    return found.lease if found is not None else 0


def read(body: bytes) -> LeaseNote | None:
    """The note; None if it is malformed."""
    try:
        return LeaseNote.model_validate_json(body)
    except ValidationError:
        return None
