"""The lease of the managers: of several handlers processes, the holder of the lease runs them; the others stand by.

It is one document, which the holder replaces every second. Each replacement names the position of the one before it
(the server compares and stores in one step), so two processes can never both replace the same one.

- The holder works for `HOLDS` seconds from the *beginning* of its last successful renewal. Then it stops, by its own
  clock, whatever it can or cannot reach.
- Another process takes the lease once it has seen the same document for `TAKES` seconds, by its own clock. It first saw
  the document after the holder began to store it, and `TAKES` is longer than `HOLDS`: so the holder has stopped by
  then. Clocks of two hosts are never compared; they only have to run at about the same speed.
- A process that meets events of a newer version leaves the lease to others, and takes it only if nobody did within
  `LEAVES` seconds.
- A process does not wait for a holder that has returned the lease, or is known to have ended. The latter can be checked
  on the same host (`runtime/process.py`). So after a restart the managers work without a pause.

If two processes do the same work for a moment (one was suspended in the middle of an append), that is harmless: appends
and documents are stored only if nothing came in between, and a decision that was made before adds no events.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from eventstore.documents import Documents
from eventstore.log.store import Conflict, Unavailable
from runtime import logs, subjects
from runtime.process import Process, clock, has_ended
from runtime.tasks.tasks import happens, heed_cancellation

log = logs.get(__name__)

#: Seconds between two renewals, and between two looks of a process that stands by.
RENEWS = 1.0
#: Seconds for which a renewal is valid; seconds for which a document must be unchanged before another process takes it.
HOLDS, TAKES = 4.0, 6.0
#: Seconds for which a document must be unchanged before a process takes it that leaves the lease to others.
LEAVES = 3 * TAKES
#: Maximum number of seconds of one step; seconds between two checks whether the lease has expired (a host may sleep).
STEP, LOOK = 3.0, 0.5
#: Seconds before the next try to replace this process's own document.
AGAIN = 0.05


class Note(BaseModel):
    """The document: the holder of the lease. `returned`: it has returned the lease."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    holder: Process
    returned: bool = False


class Lease:
    """The lease as one process sees it. `ended`: returns whether another process is known to have ended; `outdated`:
    whether there are events that this process does not know.
    """

    def __init__(
        self,
        documents: Documents,
        process: Process,
        *,
        clock: Callable[[], float] = clock,
        ended: Callable[[Process], bool] = has_ended,
        outdated: Callable[[], bool] = lambda: False,
    ) -> None:
        self._documents = documents
        self._process = process
        self._clock = clock
        self._ended = ended
        self._outdated = outdated
        #: whether it has left the lease to others, because it is outdated
        self._left = False
        #: the document that was read last, its position, and since when it has been this one
        self._note: Note | None = None
        self._position: int | None = None
        self._since = 0.0
        #: whether this process stored it; and until when it may work
        self._mine = False
        self._until = float("-inf")
        #: how often this process got the lease
        self._tenure = 0
        self._taken, self._dropped = asyncio.Event(), asyncio.Event()
        self._logged = ""
        #: since when the lease can be neither renewed nor read, and why
        self.failing_since: datetime | None = None
        self.error: str | None = None

    @property
    def held(self) -> bool:
        """Whether this process may work now."""
        return self._clock() < self._until

    @property
    def holder(self) -> Process | None:
        """The process that has the lease, as far as this process knows."""
        if self.held:
            return self._process
        return self._note.holder if self._note is not None and not self._note.returned else None

    async def begin(self) -> None:
        """Wait until this process has the lease."""
        while not self.held:
            self._taken.clear()
            await self._taken.wait()

    async def lost(self) -> None:
        """Wait until this process does not have the lease any more, or did not have it for a moment."""
        tenure = self._tenure
        while self.held and self._tenure == tenure:
            await happens(self._dropped, min(self._until - self._clock(), LOOK))

    async def keep(self) -> None:
        """Renew the lease, or wait for it, for ever."""
        worked = False
        while True:
            try:
                async with asyncio.timeout(STEP):
                    await self.step()
                heed_cancellation()
                self.failing_since = self.error = None
            except (Unavailable, TimeoutError) as error:
                self.failing_since = self.failing_since or datetime.now(UTC)
                self.error = f"the lease of the managers cannot be renewed: {str(error) or repr(error)}"
            if self.held != worked:
                worked = not worked
                if worked:
                    log.info("managers work here")
                else:
                    log.warning("managers stand by: this process has lost their lease", error=self.error)
            await asyncio.sleep(RENEWS)

    async def step(self) -> None:
        """Renew the lease, or take it if it is free. Raises Unavailable."""
        if self._mine and not self._left and self._outdated():
            log.warning("managers stand by, for a process that knows all events")
            self._left, self._since = True, self._clock()
            self._drop()
            return
        if not self._mine:
            await self._look()
            self._left = self._outdated()
            if not self._is_free():
                self._log_holder()
                return
        body = Note(holder=self._process).model_dump_json().encode()
        while True:
            began = self._clock()
            assert self._position is not None
            try:
                position = await self._documents.put(subjects.MANAGERS_LEASE, body, last=self._position)
                break
            except Conflict:
                await self._look()
                if self._note is None or self._note.holder.id != self._process.id:
                    self._drop()
                    return
                await asyncio.sleep(AGAIN)  # our own document: a replica lagged, or the reply was lost
        if not self.held:
            self._tenure += 1
        self._mine, self._position, self._until = True, position, began + HOLDS
        self._dropped.clear()
        self._taken.set()

    async def give_back(self) -> None:
        """Return the lease, so that another process gets it immediately. Called when no manager runs here any more."""
        if not self._mine or self._position is None:
            return
        self._drop()
        body = Note(holder=self._process, returned=True).model_dump_json().encode()
        try:
            async with asyncio.timeout(RENEWS):
                await self._documents.put(subjects.MANAGERS_LEASE, body, last=self._position)
        except (Conflict, Unavailable, TimeoutError) as error:
            log.debug("the lease of the managers could not be returned; it expires", error=repr(error))

    def _drop(self) -> None:
        self._mine, self._until = False, float("-inf")
        self._dropped.set()

    async def _look(self) -> None:
        """Read the document in the stream. `_since` is the time when this one was read first."""
        found = await self._documents.all(subjects.MANAGERS_LEASE)
        position = found[0].position if found else 0
        if position != self._position:
            self._note = read(found[0].body) if found else None
            self._position, self._since = position, self._clock()

    def _log_holder(self) -> None:
        """Log, once for each holder, which process has the lease."""
        if self._note is not None and self._note.holder.id != self._logged:
            self._logged = self._note.holder.id
            log.info("managers work elsewhere", host=self._note.holder.host, pid=self._note.holder.pid)

    def _is_free(self) -> bool:
        if self._left:
            return self._clock() - self._since >= LEAVES
        if self._position == 0 or self._clock() - self._since >= TAKES:
            return True
        note = self._note
        return note is not None and (note.returned or note.holder.id == self._process.id or self._ended(note.holder))


def read(body: bytes) -> Note | None:
    """The document; None if it is malformed."""
    try:
        return Note.model_validate_json(body)
    except ValidationError:
        return None
