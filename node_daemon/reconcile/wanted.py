"""The wanted documents of this node: all of them are read at the start, then each new one, without a gap."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from domain.contract import Desired, Place, Wanted
from node_daemon.reconcile.features import Refused, read
from runtime import logs, subjects
from runtime.bus import ordered, pulled, reading
from runtime.bus.api import imports
from runtime.node_keys import MAC, WANTED as LABEL, valid
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import heed_cancellation

log = logs.get(__name__)

RETRY = Backoff(first=0.2, last=5.0)
#: At most so many malformed documents are counted.
MOST_MALFORMED = 1000
#: At most so many refused documents are kept and reported: the newest.
MOST_REFUSED = 10_000


def microseconds(moment: datetime | None) -> int:
    """Microseconds since 1970; 0 for None."""
    return int(moment.timestamp() * 1e6) if moment is not None else 0


def document(message: Msg, position: int, _stored: int) -> tuple[int, Msg]:
    """A message with its position in the stream."""
    return position, message


class WantedDocuments:
    """The newest document of each VM of this node. It is incomplete until `loaded` is set: plan nothing before.

    `changed` is called with the id of the VM; with None after a document was refused. `key`: the key of this node; a
    document without its MAC is malformed. None: documents need no MAC.
    """

    def __init__(self, bus: Client, node: str, changed: Callable[[str | None], None], key: bytes | None = None) -> None:
        self._bus = bus
        self._node = node
        self._changed = changed
        self._key = key
        self._documents: dict[str, Wanted] = {}
        self.loaded = asyncio.Event()
        #: stream sequence of the last document read
        self.position = 0
        #: positions of malformed documents, by subject; at most MOST_MALFORMED
        self.malformed: dict[str, int] = {}
        #: documents that this daemon is too old for, by subject; at most MOST_REFUSED
        self._refused: dict[str, Refused] = {}
        #: when the stream was created, in microseconds since 1970
        self._stream = 0
        #: VMs whose known document was read before the stream was created again or lost its last messages
        self._unplaced: set[str] = set()

    def all(self) -> Mapping[str, Wanted]:
        return self._documents

    def get(self, vm: str) -> Wanted | None:
        return self._documents.get(vm)

    def refused(self) -> Sequence[Refused]:
        return tuple(self._refused.values())

    async def follow(self) -> None:
        """Read for ever; resume after a restart of the server, a lost consumer or a lost connection."""
        pauses, quiet = RETRY.pauses(), False
        while True:
            try:
                await self._session()
            except ordered.Interrupted as error:
                log.info("resuming to read wanted documents", reason=str(error), after=self.position)
                pauses, quiet = RETRY.pauses(), False
            except (NatsError, OSError, TimeoutError) as error:
                if not quiet:
                    log.warning("cannot read wanted documents", error=str(error) or repr(error))
                quiet = True
            await asyncio.sleep(next(pauses))

    async def forget(self, done: Callable[[str], bool]) -> None:
        """Drop each tombstone that is `done` here, refused document and malformed document that the stream has deleted.

        Raises nats.errors.Error.
        """
        tombstones = [vm for vm, want in self._documents.items() if want.desired is Desired.ABSENT and done(vm)]
        if not tombstones and not self.malformed and not self._refused:
            return
        try:
            stored = await self._stored()
        except (ordered.Interrupted, TimeoutError) as error:
            log.debug("cannot list wanted documents", error=repr(error))
            return
        for vm in tombstones:
            if subjects.wanted(self._node, "vm", vm) not in stored:
                del self._documents[vm]
                self._changed(vm)
        for subject in self.malformed.keys() - stored:
            del self.malformed[subject]
        for subject in self._refused.keys() - stored:
            del self._refused[subject]

    async def _stored(self) -> Set[str]:
        """The subjects of this node that the stream has."""
        if imports(self._bus):
            return await pulled.stored(self._bus, subjects.WANTED, self._node)
        js = self._bus.jetstream()
        info = await js.stream_info(subjects.WANTED, subjects_filter=subjects.wanted_of(self._node))
        return (info.state.subjects or {}).keys()

    async def _session(self) -> None:
        """Read with one consumer. Ends with Interrupted, or with an error of nats-py."""
        created, last = await self._origin()
        if last < self.position or self._stream not in (0, created):
            log.warning("the stream of wanted documents was created again", known=self.position, last=last)
            self.position = 0
            self._unplaced.update(self._documents)
        self._stream = created
        of_this_node = [subjects.wanted_of(self._node)]
        batches = reading.consume(self._bus, subjects.WANTED, self.position, of_this_node, document)
        async with contextlib.aclosing(batches):
            async for batch in batches:
                for self.position, message in batch.items:
                    self._take(message)
                if not batch.more:
                    self.loaded.set()

    async def _origin(self) -> tuple[int, int]:
        """When the stream was created, in microseconds since 1970, and its last position.

        In an account of its own the node knows only its consumer, which is created again with the stream.
        """
        if imports(self._bus):
            made = await pulled.created(self._bus, subjects.WANTED, self._node, self.position)
            return microseconds(made), self.position
        stream = await self._bus.jetstream().stream_info(subjects.WANTED)
        heed_cancellation()
        return microseconds(stream.created), stream.state.last_seq

    def _take(self, message: Msg) -> None:
        """Take in one document. A malformed one changes nothing: the document before it stays valid.

        The newest document in the stream counts, whatever its epoch and generation: anybody could write high numbers,
        and handlers replace documents that they did not write. Only after the stream was created again, a document
        with lower numbers is ignored. With a key nobody else can write numbers: then one with lower numbers is a repeat
        of an earlier document, which is malformed.
        """
        try:
            self._verify(message)
            _, kind, id_ = subjects.parse_wanted(message.subject)
            want = read(self._node, kind, id_, message.data)
            known = self._documents.get(id_) if kind == "vm" else None
            older = known is not None and (want.epoch, want.generation) < (known.epoch, known.generation)
            if older and self._key is not None and id_ not in self._unplaced:
                raise ValueError(f"it is older than the one before: epoch {want.epoch}, generation {want.generation}")
        except ValueError as error:
            if message.subject in self.malformed or len(self.malformed) < MOST_MALFORMED:
                self.malformed[message.subject] = self.position
            log.error(
                "ignoring a malformed wanted document",
                subject=message.subject,
                position=self.position,
                error=str(error),
            )
            return
        self.malformed.pop(message.subject, None)
        if older and id_ in self._unplaced:
            log.warning("ignoring an older wanted document", vm=id_, epoch=want.epoch, generation=want.generation)
            return
        if isinstance(want, Refused):
            self._refuse(message.subject, want)
            return
        self._refused.pop(message.subject, None)
        self._unplaced.discard(id_)
        self._documents[id_] = want.model_copy(update={"place": Place(self._stream, self.position)})
        self._changed(id_)

    def _verify(self, message: Msg) -> None:
        """Raises ValueError if handlers did not write this document for this node and subject."""
        mac = (message.headers or {}).get(MAC)
        if self._key is not None and not valid(self._key, LABEL, message.subject, message.data, mac):
            raise ValueError("its MAC is wrong or missing: handlers did not write it for this node")

    def _refuse(self, subject: str, document: Refused) -> None:
        """Persist a refused document for reports. An earlier document of the same resource is no longer valid."""
        log.error("refusing a wanted document", kind=document.kind, id=document.id, why=document.error.detail)
        if subject not in self._refused and len(self._refused) >= MOST_REFUSED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[subject] = document
        if document.kind == "vm":
            self._unplaced.discard(document.id)
            self._documents.pop(document.id, None)
            self._changed(document.id)
        self._changed(None)
