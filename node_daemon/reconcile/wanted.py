"""The documents that tell this node what to want: read from the start, then followed, gap-free, for ever."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from domain.contract import Desired, Place, Wanted
from runtime import logs, subjects

log = logs.get(__name__)

#: Seconds between the server's signs of life on the consumer, and how long to do without before making a new one.
HEARTBEAT = 2.0
SILENCE = 6.0
#: Seconds between looks whether the connection was replaced.
LOOK = 0.5
#: Subjects that are remembered of documents that make no sense.
MOST_MALFORMED = 1000
#: How the reply subject of each message of the stream begins. Its headers are its publisher's: they prove nothing.
DELIVERED = "$JS.ACK."


def microseconds(moment: datetime | None) -> int:
    """Microseconds from 1970 on."""
    return int(moment.timestamp() * 1e6) if moment is not None else 0


class Gap(Exception):
    """The consumer lost something, or is gone. A new one goes on after the last document read."""


class WantedDocuments:
    """The newest document of each VM of this node. Empty until `loaded`: nothing must be planned before."""

    def __init__(self, bus: Client, node: str, changed: Callable[[str], None]) -> None:
        self._bus = bus
        self._node = node
        self._changed = changed
        self._documents: dict[str, Wanted] = {}
        self.loaded = asyncio.Event()
        #: stream sequence of the last document read
        self.position = 0
        #: by subject: position of a document that makes no sense; so many of them
        self.malformed: dict[str, int] = {}
        #: when the stream was made, in microseconds
        self._stream = 0
        #: VMs of which the known document was read before the stream was set back or made anew
        self._unplaced: set[str] = set()

    def all(self) -> Mapping[str, Wanted]:
        return self._documents

    def get(self, vm: str) -> Wanted | None:
        return self._documents.get(vm)

    async def follow(self) -> None:
        """Read for ever: over restarts of the server, loss of the consumer, and loss of the connection."""
        delay, quiet = 0.2, False
        while True:
            try:
                await self._session()
            except Gap as gap:
                log.info("reading wanted documents anew", reason=str(gap), after=self.position)
                delay, quiet = 0.2, False
            except (NatsError, TimeoutError, ValueError) as error:  # ValueError: no consumer has sent this
                if not quiet:
                    log.warning("cannot read wanted documents", error=str(error) or repr(error))
                quiet = True
                delay = min(delay * 2, 5.0)
            await asyncio.sleep(delay)

    async def forget(self, done: Callable[[str], bool]) -> None:
        """Drop tombstones that are `done` here, and what made no sense, once the stream no longer holds them.

        Raises nats.errors.Error.
        """
        graves = [vm for vm, want in self._documents.items() if want.desired is Desired.ABSENT and done(vm)]
        if not graves and not self.malformed:
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

    async def _session(self) -> None:
        """One consumer's life. Ends with Gap, or with what NATS raises."""
        js = self._bus.jetstream()
        stream = await js.stream_info(subjects.WANTED)
        made, last = microseconds(stream.created), stream.state.last_seq
        if last < self.position or self._stream not in (0, made):
            log.warning("the stream of wanted documents was made anew", had=self.position, has=last)
            self.position = 0
            self._unplaced.update(self._documents)
        self._stream = made
        connection = self._bus.stats["reconnects"]
        inbox = self._bus.new_inbox()
        subscription = await self._bus.subscribe(inbox)
        try:
            info = await js.add_consumer(
                subjects.WANTED,
                ConsumerConfig(
                    deliver_subject=inbox,
                    deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                    opt_start_seq=self.position + 1,
                    filter_subject=subjects.wanted_of(self._node),
                    ack_policy=AckPolicy.NONE,
                    idle_heartbeat=HEARTBEAT,
                    inactive_threshold=30,
                    mem_storage=True,
                    num_replicas=1,
                ),
            )
            delivered = info.delivered.consumer_seq if info.delivered else 0
            if not info.num_pending and not delivered:
                self.loaded.set()
            await self._read(subscription, connection)
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()

    async def _read(self, subscription: Subscription, connection: int) -> None:
        clock = asyncio.get_running_loop()
        expected, heard = 1, clock.time()
        while True:
            try:
                message = await subscription.next_msg(timeout=LOOK)
            except NatsTimeout:
                if self._bus.stats["reconnects"] != connection:
                    raise Gap("the connection is another one") from None
                if clock.time() - heard > SILENCE:
                    raise Gap("no sign of life from the server") from None
                continue
            heard = clock.time()
            headers = message.headers or {}
            if not message.reply.startswith(DELIVERED):  # the server speaks for itself
                if headers.get("Status") != "100":
                    raise Gap(headers.get("Description", "the consumer ended"))
                if headers.get("Nats-Last-Consumer", str(expected - 1)) != str(expected - 1):
                    raise Gap("a document was lost on the way")
                self.loaded.set()  # the server has nothing more to say
                continue
            sequence = message.metadata.sequence
            if sequence.consumer != expected:
                raise Gap("a document was lost on the way")
            expected += 1
            self.position = sequence.stream
            self._take(message)
            if message.metadata.num_pending == 0:
                self.loaded.set()

    def _take(self, message: Msg) -> None:
        """Take in one document. One that is malformed touches nothing: what was wanted before stays wanted.

        The newest in the stream counts, whatever its numbers say: anybody can write a high one, and handlers replace
        what is not theirs. Only when the stream itself is another one, older numbers mean nothing.
        """
        try:
            _, kind, vm = subjects.parse_wanted(message.subject)
            if kind != "vm":
                raise ValueError(f"this node knows no documents of the kind {kind}; is it older?")
            want = Wanted.model_validate_json(message.data)
            if (want.vm, want.node) != (vm, self._node):
                raise ValueError(f"it is about VM {want.vm} on node {want.node}")
        except ValueError as error:
            if message.subject in self.malformed or len(self.malformed) < MOST_MALFORMED:
                self.malformed[message.subject] = self.position
            log.error(
                "wanted document makes no sense", subject=message.subject, position=self.position, error=str(error)
            )
            return
        self.malformed.pop(message.subject, None)
        known = self._documents.get(vm)
        older = known is not None and (want.epoch, want.generation) < (known.epoch, known.generation)
        if older and vm in self._unplaced:
            log.warning("older wanted document ignored", vm=vm, epoch=want.epoch, generation=want.generation)
            return
        self._unplaced.discard(vm)
        self._documents[vm] = want.model_copy(update={"place": Place(self._stream, self.position)})
        self._changed(vm)
