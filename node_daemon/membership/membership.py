"""Being the one daemon of a node: it asks for the node's lease, keeps it, and works only while it has it.

Handlers give the lease to one daemon at a time. One that is refused says who has it, waits, and takes over by itself
where that is allowed (`domain/node`).

While handlers are away nobody is given a lease. Who has one works on. Who has just started works if the node's lease
was last given to a daemon on its own folder: that one has ended, since only one process can lock the folder, and no
other was told that it may work. The note on the node's own subject says so; without the note it waits.

A daemon that was not heard for some time, since it stood still or was cut off from the bus, may have lost its lease
without knowing. Before it does anything more it asks.
"""

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from pydantic import ValidationError

from domain.contract import LEASE_SECONDS, Daemon, Introduction, LeaseGranted, LeaseNote, Leaving, NodeInfo
from node_daemon.hypervisor.hypervisor import Refused, Unreachable
from runtime import logs, subjects
from runtime.bus import replies, requests
from runtime.bus.replies import Nonsense, Refusal
from runtime.bus.requests import NobodyThere, Patience, Unanswered
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import happens

log = logs.get(__name__)

#: Seconds between two tries to register.
RETRY = Backoff(first=0.25, last=5.0)
#: Seconds between two tries while another daemon has the lease.
TAKEN_RETRY = 2.0
#: Seconds between looks whether the node has become another (more memory, another network).
LOOK_AGAIN = 60.0
ANSWER_SECONDS, LEAVE_SECONDS = 5.0, 2.0

#: Codes of answers by which this daemon may not work for the node.
TAKEN = ("node_taken", "node_elsewhere", "node_retired", "lease_lost")
LOST = "the lease of this node is another daemon's now; this one stops its work"


class Membership:
    """One daemon's claim to its node. `lease` is 0 while it has none; `refused` while another daemon has it."""

    def __init__(
        self,
        bus: Client,
        node: str,
        identity: str,
        describe: Callable[[], Awaitable[NodeInfo]],
        take_over: bool = False,
    ) -> None:
        self._bus = bus
        self._node = node
        self._describe = describe
        self._take_over = take_over
        self._heir = True
        self._look = asyncio.Event()
        self._changed = asyncio.Event()
        self._told = ""
        self._doubtful = False
        self._ran = self._heard = clock()
        self.daemon = Daemon(boot=uuid.uuid4().hex, identity=identity, host=socket.gethostname(), pid=os.getpid())
        self.lease = 0
        self.refused = False
        #: seconds after which handlers may give the lease of a silent daemon to another one
        self.seconds = LEASE_SECONDS
        #: when the lease was given, in nanoseconds of the monotonic clock
        self.since = 0
        #: the lease that this process had last: given again, its reports go on counting from where they were
        self._had = 0

    async def keep(self) -> None:
        """Register the node, and again when what `describe` says has changed, or the lease is in doubt. For ever."""
        known: NodeInfo | None = None
        pauses = RETRY.pauses()
        while True:
            self._look.clear()
            wait = LOOK_AGAIN
            try:
                info = await self._describe()
                if info != known or not self.lease or self._doubtful:
                    said = Introduction(info=info, daemon=self.daemon, heir=self._heir, take_over=self._take_over)
                    self._take(await register(self._bus, said))
                    known, pauses, self._told = info, RETRY.pauses(), ""
            except NobodyThere:
                known = None
                wait = next(pauses)
                await self._without_handlers()
            except (Unanswered, requests.Refused, Nonsense, Unreachable, Refused, ValidationError) as error:
                known = None
                if isinstance(error, requests.Refused) and error.refusal.code in TAKEN:
                    self._drop()
                    self.refused = True
                    wait = TAKEN_RETRY
                else:
                    wait = next(pauses)
                self._tell("cannot register; trying on", error=str(error) or repr(error))
            await happens(self._look, wait)

    async def held(self) -> int:
        """The lease, once there is one."""
        while not self.lease:
            self._changed.clear()
            await self._changed.wait()
        return self.lease

    async def another_than(self, lease: int) -> None:
        """Returns as soon as this is not the lease any more."""
        while self.lease == lease:
            self._changed.clear()
            await self._changed.wait()

    def unsure(self) -> bool:
        """Whether another daemon may have the lease by now. Nothing is to be done then."""
        return self._doubtful or self._was_silent()

    def beating(self) -> None:
        """Called before each heartbeat. After too long a silence it asks whether the lease is still its own."""
        if self.lease and not self._doubtful and self._was_silent():
            log.warning("not heard for too long; nothing is done until the lease is sure", node=self._node)
            self._doubtful = True
            self._look.set()
        self._ran = clock()
        if self._bus.is_connected:
            self._heard = self._ran

    async def on_answer(self, message: Msg) -> None:
        """What handlers say to a heartbeat: only that the lease is another daemon's."""
        try:
            said = replies.read(message.data)
        except Nonsense:
            said = {}
        if not isinstance(said, Refusal):
            log.warning("an answer to a heartbeat makes no sense", node=self._node)
            return
        if said.code in TAKEN and self.lease:
            if self._heir:  # handlers are back: they know only the daemon before this one
                self._doubtful = True
            else:
                self._drop()
            self._look.set()

    async def leave(self) -> None:
        """Give the lease back, if the bus is there: nobody has to wait for it."""
        if not self.lease or not self._bus.is_connected:
            return
        body = Leaving(boot=self.daemon.boot).model_dump_json().encode()
        with contextlib.suppress(Unanswered):
            await requests.ask(self._bus, subjects.leave(self._node), body, Patience(LEAVE_SECONDS))
        self.lease = 0

    def age(self) -> int:
        """Nanoseconds since the lease was given."""
        return time.monotonic_ns() - self.since

    def _was_silent(self) -> bool:
        """Whether it stood still, or its connection did, for so long that others may be given the lease soon."""
        now, most = clock(), self.seconds / 2
        return now - self._ran > most or (self._bus.is_connected and now - self._heard > most)

    async def _without_handlers(self) -> None:
        """Nobody answers, so nobody is given a lease now. Go on with the last one, if it was given to this folder."""
        try:
            note = await last_given(self._bus, self._node)
        except (NatsError, TimeoutError, ValidationError) as error:
            self._tell("handlers are away, and so is the note who works for this node", error=str(error) or repr(error))
            return
        mine = note is not None and note.identity == self.daemon.identity
        if note is not None and self.lease and (note.lease != self.lease or not mine):
            self._drop()
        elif note is not None and mine and (self.lease or self._heir):
            if not self.lease:
                log.warning("handlers are away; the lease was given to this folder last, so work goes on")
            self._hold(note.lease)
        elif not self.lease:
            had = "it had no lease before" if note is None else "the lease was given to a daemon on another folder last"
            self._tell(f"handlers are away, and {had}: nothing is started until they answer")

    def _tell(self, text: str, **more: str) -> None:
        """Say it once, until it is over."""
        told = text + more.get("error", "")
        if told != self._told:
            log.warning(text, node=self._node, **more)
        self._told = told

    def _take(self, granted: LeaseGranted) -> None:
        self._heir = False
        self.seconds = granted.seconds
        self._hold(granted.lease)

    def _hold(self, lease: int) -> None:
        """It is sure that this is the lease."""
        self._ran = self._heard = clock()
        self._doubtful = self.refused = False
        if lease != self.lease:
            log.info("this daemon works for the node", node=self._node, lease=lease)
            if lease != self._had:
                self.since = time.monotonic_ns()
            self.lease = self._had = lease
            self._changed.set()

    def _drop(self) -> None:
        if self.lease:
            log.error(LOST, node=self._node, lease=self.lease)
        self.lease = 0
        self._changed.set()


def clock() -> float:
    """Seconds that go on while the process or its host stands still."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def last_given(bus: Client, node: str) -> LeaseNote | None:
    """The note to whom the node's lease was given last, from the stream's leader. None where there is none.

    Raises what NATS raises, and ValidationError.
    """
    try:
        found = await bus.jetstream(timeout=ANSWER_SECONDS).get_last_msg(subjects.LEASES, subjects.lease(node))
    except NotFoundError:
        return None
    return LeaseNote.model_validate_json(found.data or b"")


async def register(bus: Client, said: Introduction) -> LeaseGranted:
    """Ask the handlers to know this node. Raises Unanswered, requests.Refused, Nonsense."""
    subject, body = subjects.register(said.info.node), said.model_dump_json().encode()
    granted = await requests.asked(bus, subject, body, Patience(ANSWER_SECONDS), LeaseGranted.model_validate)
    log.info("node registered", **said.info.model_dump(exclude={"version"}))
    return granted
