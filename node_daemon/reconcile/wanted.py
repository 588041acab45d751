"""The documents that tell this node what to want: read from the start, then followed, gap-free, for ever."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from domain.contract import Desired, Place, Wanted
from node_daemon.reconcile.features import Refused, read
from runtime import logs, subjects
from runtime.bus import ordered
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import heed_cancellation

log = logs.get(__name__)

RETRY = Backoff(first=0.2, last=5.0)
#: Subjects that are remembered of documents that make no sense.
MOST_MALFORMED = 1000
#: Documents that are refused, the newest of them, of which reports tell.
MOST_REFUSED = 10_000


def microseconds(moment: datetime | None) -> int:
    """Microseconds from 1970 on."""
    return int(moment.timestamp() * 1e6) if moment is not None else 0


def document(message: Msg, position: int, _stored: int) -> tuple[int, Msg]:
    """A message as it came, with its position in the stream."""
    return position, message


class WantedDocuments:
    """The newest document of each VM of this node. Empty until `loaded`: nothing must be planned before.

    `changed` is told which VM; None where a document was refused.
    """

    def __init__(self, bus: Client, node: str, changed: Callable[[str | None], None]) -> None:
        self._bus = bus
        self._node = node
        self._changed = changed
        self._documents: dict[str, Wanted] = {}
        self.loaded = asyncio.Event()
        #: stream sequence of the last document read
        self.position = 0
        #: by subject: position of a document that makes no sense; so many of them
        self.malformed: dict[str, int] = {}
        #: by subject: those that this daemon is too old for
        self._refused: dict[str, Refused] = {}
        #: when the stream was made, in microseconds
        self._stream = 0
        #: VMs of which the known document was read before the stream was set back or made anew
        self._unplaced: set[str] = set()

    def all(self) -> Mapping[str, Wanted]:
        return self._documents

    def get(self, vm: str) -> Wanted | None:
        return self._documents.get(vm)

    def refused(self) -> Sequence[Refused]:
        return tuple(self._refused.values())

    async def follow(self) -> None:
        """Read for ever: over restarts of the server, loss of the consumer, and loss of the connection."""
        pauses, quiet = RETRY.pauses(), False
        while True:
            try:
                await self._session()
            except ordered.Interrupted as error:
                log.info("reading wanted documents anew", reason=str(error), after=self.position)
                pauses, quiet = RETRY.pauses(), False
            except (NatsError, OSError, TimeoutError) as error:
                if not quiet:
                    log.warning("cannot read wanted documents", error=str(error) or repr(error))
                quiet = True
            await asyncio.sleep(next(pauses))

    async def forget(self, done: Callable[[str], bool]) -> None:
        """Drop tombstones that are `done` here, and what was refused or made no sense, once the stream did so.

        Raises nats.errors.Error.
        """
        graves = [vm for vm, want in self._documents.items() if want.desired is Desired.ABSENT and done(vm)]
        if not graves and not self.malformed and not self._refused:
            return
        js = self._bus.jetstream()
        info = await js.stream_info(subjects.WANTED, subjects_filter=subjects.wanted_of(self._node))
        held = info.state.subjects or {}
        for vm in graves:
            if subjects.wanted(self._node, "vm", vm) not in held:
                del self._documents[vm]
                self._changed(vm)
        for subject in self.malformed.keys() - held.keys():
            del self.malformed[subject]
        for subject in self._refused.keys() - held.keys():
            del self._refused[subject]

    async def _session(self) -> None:
        """One consumer's life. Ends with Interrupted, or with what NATS raises."""
        stream = await self._bus.jetstream().stream_info(subjects.WANTED)
        heed_cancellation()
        made, last = microseconds(stream.created), stream.state.last_seq
        if last < self.position or self._stream not in (0, made):
            log.warning("the stream of wanted documents was made anew", had=self.position, has=last)
            self.position = 0
            self._unplaced.update(self._documents)
        self._stream = made
        mine = [subjects.wanted_of(self._node)]
        batches = ordered.consumed(self._bus, subjects.WANTED, self.position, mine, document)
        async with contextlib.aclosing(batches):
            async for batch in batches:
                for self.position, message in batch.items:
                    self._take(message)
                if not batch.more:
                    self.loaded.set()

    def _take(self, message: Msg) -> None:
        """Take in one document. One that is malformed touches nothing: what was wanted before stays wanted.

        The newest in the stream counts, whatever its numbers say: anybody can write a high one, and handlers replace
        what is not theirs. Only when the stream itself is another one, older numbers mean nothing.
        """
        try:
            _, kind, id_ = subjects.parse_wanted(message.subject)
            want = read(self._node, kind, id_, message.data)
        except ValueError as error:
            if message.subject in self.malformed or len(self.malformed) < MOST_MALFORMED:
                self.malformed[message.subject] = self.position
            log.error(
                "wanted document makes no sense", subject=message.subject, position=self.position, error=str(error)
            )
            return
        self.malformed.pop(message.subject, None)
        known = self._documents.get(id_) if kind == "vm" else None
        older = known is not None and (want.epoch, want.generation) < (known.epoch, known.generation)
        if older and id_ in self._unplaced:
            log.warning("older wanted document ignored", vm=id_, epoch=want.epoch, generation=want.generation)
            return
        if isinstance(want, Refused):
            self._refuse(message.subject, want)
            return
        self._refused.pop(message.subject, None)
        self._unplaced.discard(id_)
        self._documents[id_] = want.model_copy(update={"place": Place(self._stream, self.position)})
        self._changed(id_)

    def _refuse(self, subject: str, document: Refused) -> None:
        """Neither this document nor an earlier one of the same thing is gone by."""
        log.error("wanted document refused", kind=document.kind, id=document.id, why=document.error.detail)
        if subject not in self._refused and len(self._refused) >= MOST_REFUSED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[subject] = document
        if document.kind == "vm":
            self._unplaced.discard(document.id)
            self._documents.pop(document.id, None)
            self._changed(document.id)
        self._changed(None)
