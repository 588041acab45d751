"""Who has the lease of each node, told on the node's own subject, for daemons that start while handlers are away.

The log says it as well, but nodes do not read the log. A note is stored before the daemon it names is told that it has
the lease. So while a note names an earlier daemon, no later one works.
"""

from pydantic import ValidationError

from domain.contract import LeaseNote
from eventstore.documents import Documents
from eventstore.store import Conflict
from runtime import subjects

ATTEMPTS = 8


class Leases:
    """Keeps the notes."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def note(self, given: LeaseNote) -> None:
        """Replace the node's note, unless it tells of a later lease. Raises Unavailable, Conflict."""
        subject = subjects.lease(given.node)
        for attempt in range(ATTEMPTS):
            there = await self._documents.all(subject)
            known = read(there[0].body) if there else None
            if known is not None and (known == given or known.lease > given.lease):
                return
            try:
                last = there[0].position if there else 0
                await self._documents.put(subject, given.model_dump_json().encode(), last=last)
                return
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise


def read(body: bytes) -> LeaseNote | None:
    """The note; None where it makes no sense."""
    try:
        return LeaseNote.model_validate_json(body)
    except ValidationError:
        return None
