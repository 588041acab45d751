"""Connections of people to the consoles and displays of this node's guests. Each is relayed between bus and hypervisor.

A serial console has one connection at a time. A new connection with `force` ends the one before, whose client gets the
reason. A display may have several connections. A connection ends when its guest, its client or this daemon ends. The
guest keeps running.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from nats.aio.client import Client

from node_daemon.hypervisor.hypervisor import Busy, Channel, Hypervisor, Refused, Unreachable
from runtime import logs, subjects
from runtime.bus.pipe import Ended, Pipe
from runtime.bus.replies import MOST_DETAIL, Refusal
from runtime.tasks.tasks import end

log = logs.get(__name__)

#: Maximum number of open connections to the guests of this node.
MOST = 128

#: Seconds to wait for the end of a connection whose client has left.
LEAVING = 5.0

CLOSED = "the VM has closed the connection: it is off, or somebody on the node took over the console"


class Denied(Exception):
    """A request is refused: the problem that the API shows."""

    def __init__(self, code: str, detail: str, status: int = 409) -> None:
        super().__init__(detail)
        self.refusal = Refusal.model_construct(code=code, status=status, detail=detail[:MOST_DETAIL])


SessionKey = Callable[[str], bytes]
"""The key of one direction of a new session, by the subject that it goes to."""


@dataclass(frozen=True)
class ConnectionRequest:
    """A request of `actor` to connect to the console or display of a VM. `session`: id of the new session. `key` None:
    its bytes are not sealed.
    """

    kind: Literal["console", "vnc"]
    vm: str
    session: str
    actor: str
    force: bool = False
    key: SessionKey | None = field(default=None, repr=False, compare=False)


@dataclass
class Session:
    """An open connection. `why`: the reason for its end, sent to the client."""

    request: ConnectionRequest
    pipe: Pipe
    channel: Channel
    why: str = CLOSED
    task: asyncio.Task[None] | None = None


class Sessions:
    def __init__(self, bus: Client, node: str, hypervisor: Hypervisor) -> None:
        self._bus = bus
        self._node = node
        self._hypervisor = hypervisor
        self._open: dict[str, Session] = {}
        self._opening: set[str] = set()

    async def console(self, request: ConnectionRequest) -> None:
        """Connect to the serial console. Raises Denied."""
        if request.vm in self._opening:
            raise Denied("console_in_use", "another connection to this console is being opened; try again")
        self._opening.add(request.vm)
        try:
            self._check_room()
            await self._take(request)
            try:
                channel = await self._hypervisor.open_console(request.vm, force=request.force)
            except Busy as error:
                raise in_use("somebody on the node itself") from error
            except Refused as error:
                detail = f"the console cannot be opened: {error.detail}; start the VM if it does not run"
                raise Denied("no_console", detail) from error
            except Unreachable as error:
                raise Denied("node_failed", f"libvirt does not answer: {error}", 503) from error
            await self._connect(request, channel)
        finally:
            self._opening.discard(request.vm)

    async def display(self, request: ConnectionRequest) -> None:
        """Connect to the VNC server. Raises Denied."""
        self._check_room()
        try:
            channel = await self._hypervisor.open_display(request.vm)
        except Refused as error:
            detail = f"the display cannot be opened: {error.detail}; start the VM if it does not run"
            raise Denied("no_display", detail) from error
        except Unreachable as error:
            raise Denied("node_failed", f"libvirt does not answer: {error}", 503) from error
        await self._connect(request, channel)

    async def close(self) -> None:
        """End all connections, and send the reason to their clients."""
        for session in self._open.values():
            session.why = "the node daemon stops; the VM keeps running"
        await end([session.task for session in list(self._open.values()) if session.task])

    def _check_room(self) -> None:
        if len(self._open) >= MOST:
            raise Denied("node_busy", f"{MOST} connections to guests of this node are open; try again later", 503)

    async def _take(self, request: ConnectionRequest) -> None:
        """Make the console of a VM free. Raises Denied if another connection has it and `force` is not set."""
        for session in list(self._open.values()):
            if (session.request.kind, session.request.vm) != ("console", request.vm) or session.task is None:
                continue
            if session.pipe.ended is not None:  # its client has left, and the session ends soon
                await asyncio.wait({session.task}, timeout=LEAVING)
            elif request.force:
                session.why = f"{request.actor} has taken over"
                await end([session.task])
            else:
                raise in_use(session.request.actor)

    async def _connect(self, request: ConnectionRequest, channel: Channel) -> None:
        here, there = (subjects.session(self._node, request.session, receiver) for receiver in ("node", "gateway"))
        pipe = Pipe(self._bus, here, there)
        if request.key is not None:
            pipe.seal(request.key(there), request.key(here))
        try:
            await pipe.open()
        except BaseException:
            await channel.close()
            raise
        session = Session(request, pipe, channel)
        self._open[request.session] = session
        session.task = asyncio.create_task(self._relay(session), name=f"session {request.session}")

    async def _relay(self, session: Session) -> None:
        """Relay data in both directions until one of them ends."""
        request, started = session.request, time.monotonic()
        session_log = log.bind(kind=request.kind, vm=request.vm, session=request.session, actor=request.actor)
        session_log.info("connection opened", force=request.force)
        directions = [asyncio.create_task(relay_output(session)), asyncio.create_task(relay_input(session))]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(directions)
            await session.pipe.close(session.why)
            await session.channel.close()
            del self._open[request.session]
            session_log.info("connection closed", why=session.pipe.ended, seconds=round(time.monotonic() - started, 1))


async def relay_output(session: Session) -> None:
    """From the guest to the client, until either of them ends."""
    while data := await session.channel.read():
        try:
            await session.pipe.send(data)
        except Ended:
            return


async def relay_input(session: Session) -> None:
    """From the client to the guest, until the client ends."""
    while True:
        try:
            data = await session.pipe.receive()
        except Ended:
            return
        await session.channel.write(data)


def in_use(actor: str) -> Denied:
    return Denied("console_in_use", f"{actor} has this console; connect with force to take it over")
