"""The lease of a node: a daemon requests it, keeps it, and works only while it holds it.

Handlers grant the lease to one daemon at a time. A daemon that is refused logs who holds the lease, waits, and takes
over by itself where that is allowed (`domain/node`).

While no handlers answer, no lease is granted. A daemon that holds the lease continues to work. A daemon that has just
started works if the last lease was granted to a daemon on the same data folder. That daemon has ended, because only one
process can lock the folder, and no other daemon holds a lease. The lease note on the node's subject names the folder.
Without the note the daemon waits.

A daemon that has the node's key signs what it sends, and believes only answers and notes that handlers signed for it.
With its registration and its heartbeats it repeats a challenge of handlers, so that nobody can send them again later.

A daemon that was frozen, or was disconnected from the bus, may have lost its lease without knowing it. It takes no step
until handlers have confirmed the lease.
"""

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from pydantic import ValidationError

from domain.contract import (
    LEASE_SECONDS,
    Challenged,
    Daemon,
    HeartbeatAnswer,
    Introduction,
    KnownVms,
    LeaseGranted,
    LeaseNote,
    Leaving,
    NodeInfo,
)
from node_daemon.hypervisor.hypervisor import Refused, Unreachable
from runtime import logs, subjects
from runtime.answer_keys import unsealed
from runtime.bus import replies, requests
from runtime.bus.api import imports
from runtime.bus.replies import InvalidReply, Refusal, Result
from runtime.bus.requests import NobodyThere, Patience, Unanswered
from runtime.node_keys import ANSWER, HEARTBEAT, LEASE, LEAVE, MAC, REGISTER, answering, signed, valid
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import happens

log = logs.get(__name__)

#: Seconds between two tries to register.
RETRY = Backoff(first=0.25, last=5.0)
#: Seconds between two tries while another daemon has the lease.
TAKEN_RETRY = 2.0
#: Seconds between checks whether the description of the node has changed (more memory, another network).
CHECK_SECONDS = 60.0
#: Seconds to wait for an answer to a registration, and to the return of the lease.
ANSWER_SECONDS, LEAVE_SECONDS = 5.0, 2.0

#: Codes of refusals that forbid this daemon to work for the node.
NOT_ALLOWED = ("node_taken", "node_elsewhere", "node_retired", "lease_lost")
#: Maximum number of heartbeats whose answers are still accepted.
ANSWERED = 4
LOST = "the lease of this node was given to another daemon; this daemon stops its work"


Learn = Callable[[tuple[str, ...], tuple[bytes | None, ...]], None]


class Membership:
    """The lease of one daemon for its node. `lease` is 0 while it has none; `refused`: another daemon has it.
    `key`: the node's key; None: this node was never given one, and does not sign. `learn`: takes the keys of gateways,
    and those of the answers to them. `known`: takes what the log knows of the VMs of the node.
    """

    def __init__(
        self,
        bus: Client,
        node: str,
        identity: str,
        describe: Callable[[], Awaitable[NodeInfo]],
        take_over: bool = False,
        key: bytes | None = None,
        learn: Learn = lambda _keys, _answers: None,
        known: Callable[[KnownVms], None] = lambda _: None,
    ) -> None:
        self._known = known
        self._key = key
        self._learn = learn
        self._sequence = 0
        self._beats: deque[bytes] = deque(maxlen=ANSWERED)
        #: the newest challenge of handlers; set when it is new
        self.challenge = ""
        self.challenged = asyncio.Event()
        self._bus = bus
        self._node = node
        self._describe = describe
        self._take_over = take_over
        self._heir = True
        self._check_now = asyncio.Event()
        self._changed = asyncio.Event()
        self._last_warning = ""
        #: whether handlers have to confirm the lease before the next step
        self._in_doubt = False
        #: times of `clock`: of the last heartbeat, and of the last one while connected
        self._last_beat = self._last_connected = clock()
        self.daemon = Daemon(boot=uuid.uuid4().hex, identity=identity, host=socket.gethostname(), pid=os.getpid())
        self.lease = 0
        self.refused = False
        #: seconds without a heartbeat after which handlers may grant the lease to another daemon
        self.seconds = LEASE_SECONDS
        #: when the lease was granted, in nanoseconds of the monotonic clock
        self.since = 0
        #: the last lease of this process; if it is granted again, the sequence of its reports continues
        self._previous = 0

    async def keep(self) -> None:
        """Register the node; again whenever its description changes or the lease is in doubt. Never returns."""
        known: NodeInfo | None = None
        pauses = RETRY.pauses()
        while True:
            self._check_now.clear()
            wait = CHECK_SECONDS
            try:
                info = await self._describe()
                if info != known or not self.lease or self._in_doubt:
                    introduction = Introduction(
                        info=info,
                        daemon=self.daemon,
                        heir=self._heir,
                        take_over=self._take_over,
                        challenge=self.challenge,
                    )
                    self._accept(await self._register(introduction))
                    known, pauses, self._last_warning = info, RETRY.pauses(), ""
            except NobodyThere:
                known = None
                wait = next(pauses)
                await self._without_handlers()
            except (Unanswered, requests.Refused, InvalidReply, Unreachable, Refused, ValidationError) as error:
                known = None
                if isinstance(error, requests.Refused) and error.refusal.code in NOT_ALLOWED:
                    self._drop()
                    self.refused = True
                    wait = TAKEN_RETRY
                else:
                    wait = next(pauses)
                self._warn_once("cannot register this node; it will try again", error=str(error) or repr(error))
            await happens(self._check_now, wait)

    async def wait_for_lease(self) -> int:
        """Wait until this daemon holds a lease, and return it."""
        while not self.lease:
            self._changed.clear()
            await self._changed.wait()
        return self.lease

    async def wait_for_end_of(self, lease: int) -> None:
        """Return as soon as this daemon does not hold this lease any more."""
        while self.lease == lease:
            self._changed.clear()
            await self._changed.wait()

    def in_doubt(self) -> bool:
        """Whether another daemon may hold the lease by now. No step may be taken then."""
        return self._in_doubt or self._was_silent()

    def before_heartbeat(self) -> None:
        """Called before each heartbeat. After too long a silence the lease has to be confirmed."""
        if self.lease and not self._in_doubt and self._was_silent():
            log.warning("no heartbeat for too long; no step is taken until the lease is confirmed", node=self._node)
            self._in_doubt = True
            self._check_now.set()
        self._last_beat = clock()
        if self._bus.is_connected:
            self._last_connected = self._last_beat

    async def on_answer(self, message: Msg) -> None:
        """Take in an answer of handlers to a heartbeat. They answer only when another daemon holds the lease, with a
        new challenge, and if the heartbeat asks.
        """
        try:
            self._verify(message, subjects.heartbeat(self._node), *self._beats)
            answer = replies.read(message.data)
            if not isinstance(answer, Refusal) and (self._key is not None or "known" in answer):
                given = HeartbeatAnswer.model_validate(answer)
                if given.challenge and self._key is not None:
                    self._challenge_is(given)
                if given.known is not None:
                    self._known(given.known)
                return
        except (InvalidReply, ValidationError):
            answer = {}
        if not isinstance(answer, Refusal):
            log.warning("ignoring a malformed answer to a heartbeat", node=self._node)
            return
        if answer.code in NOT_ALLOWED and self.lease:
            if self._heir:  # handlers answer again, and know only the previous daemon of this folder
                self._in_doubt = True
            else:
                self._drop()
            self._check_now.set()

    async def leave(self) -> None:
        """Return the lease, if the bus is connected, so that another daemon can start without waiting."""
        if not self.lease or not self._bus.is_connected:
            return
        subject, body = subjects.leave(self._node), Leaving(boot=self.daemon.boot).model_dump_json().encode()
        headers = signed(self._key, LEAVE, subject, body)
        with contextlib.suppress(Unanswered):
            await requests.ask(self._bus, subject, body, Patience(LEAVE_SECONDS), headers)
        self.lease = 0

    def next_beat(self) -> int:
        """The sequence of the next heartbeat; 0 if this node does not sign."""
        self._sequence += self._key is not None
        return self._sequence

    def sign_heartbeat(self, subject: str, body: bytes) -> dict[str, str] | None:
        """The headers of a heartbeat, which is sent now."""
        self._beats.append(body)
        return signed(self._key, HEARTBEAT, subject, body)

    def age(self) -> int:
        """Nanoseconds since the lease was granted."""
        return time.monotonic_ns() - self.since

    def _was_silent(self) -> bool:
        """Whether no heartbeat could be sent for half of the time after which another daemon may get the lease."""
        now, most = clock(), self.seconds / 2
        return now - self._last_beat > most or (self._bus.is_connected and now - self._last_connected > most)

    async def _register(self, introduction: Introduction) -> LeaseGranted:
        """Register this node with the handlers; with their challenge, if they ask for one.

        Raises Unanswered, requests.Refused, InvalidReply, ValidationError.
        """
        answer = await self._introduce(introduction)
        if self._key is not None and "challenge" in answer:
            self._challenge_is(Challenged.model_validate(answer))
            answer = await self._introduce(introduction.model_copy(update={"challenge": self.challenge}))
        granted = LeaseGranted.model_validate(answer)
        log.info("node registered", **introduction.info.model_dump(exclude={"version"}))
        return granted

    async def _introduce(self, introduction: Introduction) -> Result:
        subject, body = subjects.register(self._node), introduction.model_dump_json().encode()
        headers = signed(self._key, REGISTER, subject, body)
        message = await requests.ask(self._bus, subject, body, Patience(ANSWER_SECONDS), headers)
        self._verify(message, subject, body)
        answer = replies.read(message.data)
        if isinstance(answer, Refusal):
            raise requests.Refused(answer)
        return answer

    def _verify(self, message: Msg, subject: str, *requests_: bytes) -> None:
        """Raises InvalidReply if handlers did not write this answer to one of these requests of this node."""
        if self._key is None:
            return
        mac = (message.headers or {}).get(MAC)
        if not any(valid(self._key, ANSWER, subject, answering(body, message.data), mac) for body in requests_):
            raise InvalidReply("its MAC is wrong or missing: handlers did not write it for this node")

    def _challenge_is(self, given: Challenged) -> None:
        self._learn_keys(given)
        self.challenge = given.challenge
        self.challenged.set()

    def _learn_keys(self, given: LeaseGranted | Challenged) -> None:
        key, sealed = self._key, given.answer_keys if self._key is not None else ()
        self._learn(given.ask_keys, tuple(unsealed(each, key) for each in sealed if key is not None))

    async def _without_handlers(self) -> None:
        """No handlers answer, so no lease is granted now. Continue the last lease, if it was granted to this folder."""
        try:
            note = await last_lease_note(self._bus, self._node, self._key)
        except (NatsError, TimeoutError, ValueError) as error:
            text = "no handlers answer, and the lease note of this node cannot be read; nothing is started"
            self._warn_once(text, error=str(error) or repr(error))
            return
        mine = note is not None and note.identity == self.daemon.identity
        if note is not None and self.lease and (note.lease != self.lease or not mine):
            self._drop()
        elif note is not None and mine and (self.lease or self._heir):
            if not self.lease:
                log.warning("no handlers answer; the last lease was granted to this data folder, so work continues")
            self._confirm(note.lease)
        elif not self.lease:
            why = "this node never had a lease" if note is None else "the last lease was granted to another data folder"
            self._warn_once(f"no handlers answer, and {why}; nothing is started until they answer")

    def _warn_once(self, text: str, **more: str) -> None:
        """Log a warning, unless it is the same as the last one."""
        warning = text + more.get("error", "")
        if warning != self._last_warning:
            log.warning(text, node=self._node, **more)
        self._last_warning = warning

    def _accept(self, granted: LeaseGranted) -> None:
        self._learn_keys(granted)
        self._heir = False
        self.seconds = granted.seconds
        self._confirm(granted.lease)

    def _confirm(self, lease: int) -> None:
        """Handlers, or the lease note, have confirmed that this daemon holds this lease."""
        self._last_beat = self._last_connected = clock()
        self._in_doubt = self.refused = False
        if lease != self.lease:
            log.info("this daemon works for the node", node=self._node, lease=lease)
            if lease != self._previous:
                self.since = time.monotonic_ns()
            self.lease = self._previous = lease
            self._changed.set()

    def _drop(self) -> None:
        if self.lease:
            log.error(LOST, node=self._node, lease=self.lease)
        self.lease = 0
        self._changed.set()


def clock() -> float:
    """Seconds of a clock that also counts while the process is stopped or the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def last_lease_note(bus: Client, node: str, key: bytes | None = None) -> LeaseNote | None:
    """The note of the last grant of the node's lease, read from the stream's leader (from any
    replica in an account of its own). None if no lease was ever granted.

    Raises errors of nats-py, and ValueError for a note that is malformed, or that handlers did not sign for this node.
    """
    try:
        js = bus.jetstream(timeout=ANSWER_SECONDS)
        found = await js.get_last_msg(subjects.LEASES, subjects.lease(node), direct=imports(bus))
    except NotFoundError:
        return None
    body, mac = found.data or b"", (found.headers or {}).get(MAC)
    if key is not None and not valid(key, LEASE, subjects.lease(node), body, mac):
        raise ValueError("its MAC is wrong or missing: handlers did not write it for this node")
    return LeaseNote.model_validate_json(body)
