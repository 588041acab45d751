"""Being the one daemon of a node: it asks for the node's lease, keeps it, and works only while it has it.

Handlers give the lease to one daemon at a time. One that is refused says who has it, waits, and takes over by itself
when that one has ended. While handlers are away nobody loses a lease, and who has one works on.
"""

import asyncio
import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import ValidationError

from domain.contract import Daemon, Introduction, LeaseGranted, Leaving, NodeInfo
from node_daemon.hypervisor import Refused, Unreachable
from runtime import logs, subjects
from runtime.tasks import happens

log = logs.get(__name__)

#: Seconds between two tries to register: doubled from the first to the last.
FIRST_RETRY, LAST_RETRY = 0.25, 10.0
#: Seconds between two tries while another daemon has the lease.
TAKEN_RETRY = 2.0
#: Seconds between looks whether the node has become another (more memory, another network).
LOOK_AGAIN = 60.0
ANSWER_SECONDS, LEAVE_SECONDS = 5.0, 2.0

#: Codes of answers by which the lease is another daemon's.
TAKEN = ("node_taken", "lease_lost")


class NotRegistered(Exception):
    """The handlers refused; the text says why."""

    def __init__(self, detail: str, code: str = "") -> None:
        super().__init__(detail)
        self.code = code


class Membership:
    """One daemon's claim to its node. `lease` is 0 while it has none."""

    def __init__(self, bus: Client, node: str, identity: str, describe: Callable[[], Awaitable[NodeInfo]]) -> None:
        self._bus = bus
        self._node = node
        self._describe = describe
        self._heir = True
        self._look = asyncio.Event()
        self.daemon = Daemon(boot=uuid.uuid4().hex, identity=identity, host=socket.gethostname(), pid=os.getpid())
        self.lease = 0
        #: when the lease was given, in nanoseconds of the monotonic clock
        self.since = 0
        self.held = asyncio.Event()
        self.lost = asyncio.Event()

    async def keep(self) -> None:
        """Register the node, and again whenever what `describe` says of it changes, or the lease is lost. For ever."""
        known: NodeInfo | None = None
        delay, told = FIRST_RETRY, ""
        while True:
            self._look.clear()
            wait = LOOK_AGAIN
            try:
                info = await self._describe()
                if info != known or not self.lease:
                    granted = await register(self._bus, Introduction(info=info, daemon=self.daemon, heir=self._heir))
                    self._take(granted)
                    known = info
                    delay, told = FIRST_RETRY, ""
            except (NatsError, TimeoutError, Unreachable, Refused, NotRegistered, ValidationError) as error:
                if isinstance(error, NotRegistered) and error.code in TAKEN:
                    self._drop()
                    wait = TAKEN_RETRY
                else:
                    wait, delay = delay, min(delay * 2, LAST_RETRY)
                text = str(error) or repr(error)
                if text != told:
                    log.warning("cannot register; trying on", node=self._node, error=text)
                told = text
            await happens(self._look, wait)

    async def on_answer(self, message: Msg) -> None:
        """What handlers say to a heartbeat: only that the lease is another daemon's."""
        try:
            code = json.loads(message.data)["problem"]["code"]
        except (ValueError, TypeError, LookupError):
            log.warning("an answer to a heartbeat makes no sense", node=self._node)
            return
        if code in TAKEN and self.lease:
            log.error("the lease of this node is another daemon's now; this one stops its work", node=self._node)
            self._drop()
            self._look.set()

    async def leave(self) -> None:
        """Give the lease back, if the bus is there: nobody has to wait for it."""
        if not self.lease or not self._bus.is_connected:
            return
        body = Leaving(boot=self.daemon.boot).model_dump_json().encode()
        with contextlib.suppress(NatsError, TimeoutError):
            await self._bus.request(subjects.leave(self._node), body, timeout=LEAVE_SECONDS)
        self.lease = 0

    def age(self) -> int:
        """Nanoseconds since the lease was given."""
        return time.monotonic_ns() - self.since

    def _take(self, granted: LeaseGranted) -> None:
        self._heir = False
        if granted.lease == self.lease:
            return
        log.info("this daemon works for the node", node=self._node, lease=granted.lease)
        self.lease, self.since = granted.lease, time.monotonic_ns()
        self.lost.clear()
        self.held.set()

    def _drop(self) -> None:
        self.lease = 0
        self.held.clear()
        self.lost.set()


async def register(bus: Client, said: Introduction) -> LeaseGranted:
    """Ask the handlers to know this node. Raises NotRegistered, or what NATS raises when nobody answers."""
    answer = await bus.request(
        subjects.register(said.info.node), said.model_dump_json().encode(), timeout=ANSWER_SECONDS
    )
    try:
        reply = json.loads(answer.data)
    except ValueError as error:
        raise NotRegistered(f"the answer is not JSON: {error}") from error
    if isinstance(reply, dict) and isinstance(problem := reply.get("problem"), dict):
        raise NotRegistered(str(problem.get("detail") or problem), str(problem.get("code")))
    if not isinstance(reply, dict) or "ok" not in reply:
        raise NotRegistered(f"the answer makes no sense: {str(reply)[:200]}")
    granted = LeaseGranted.model_validate(reply["ok"])
    log.info("node registered", **said.info.model_dump(exclude={"version"}))
    return granted
