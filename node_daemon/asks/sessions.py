"""People at the consoles and displays of this node's guests: each connection is carried between bus and hypervisor.

A serial console is one person's at a time. Whoever opens it with `force` takes it away from the one before, who is
told; a display is seen by as many as like to. A connection ends with its guest, with either of its ends, and with this
daemon; the guest runs on.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Literal

from nats.aio.client import Client

from node_daemon.hypervisor.hypervisor import Busy, Channel, Hypervisor, Refused, Unreachable
from runtime import logs, subjects
from runtime.bus.pipe import Ended, Pipe
from runtime.bus.replies import MOST_DETAIL, Refusal
from runtime.tasks.tasks import end

log = logs.get(__name__)

#: Connections to guests at once, on the whole node.
MOST = 128

#: Seconds for one that was left to be taken down.
LEAVING = 5.0

CLOSED = "the VM has closed its end: it is off, or somebody at the node took over"


class Denied(Exception):
    """The answer is no: a problem, as the API will show it."""

    def __init__(self, code: str, detail: str, status: int = 409) -> None:
        super().__init__(detail)
        self.refusal = Refusal.model_construct(code=code, status=status, detail=detail[:MOST_DETAIL])


@dataclass(frozen=True)
class Wish:
    """Who wants to be connected to what of which VM, under which session id."""

    kind: Literal["console", "vnc"]
    vm: str
    session: str
    actor: str
    force: bool = False


@dataclass
class Session:
    """A connection. `why` is what its far end is told at the end."""

    wish: Wish
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

    async def console(self, wish: Wish) -> None:
        """Connect to the serial console. Raises Denied."""
        if wish.vm in self._opening:
            raise Denied("console_in_use", "somebody else is just being connected to this console")
        self._opening.add(wish.vm)
        try:
            self._check_room()
            await self._take(wish)
            try:
                channel = await self._hypervisor.open_console(wish.vm, force=wish.force)
            except Busy as error:
                raise in_use("somebody at the node itself") from error
            except Refused as error:
                raise Denied(
                    "no_console", f"the console cannot be opened; does the VM run? ({error.detail})"
                ) from error
            except Unreachable as error:
                raise Denied("node_failed", f"libvirt does not answer: {error}", 503) from error
            await self._connect(wish, channel)
        finally:
            self._opening.discard(wish.vm)

    async def display(self, wish: Wish) -> None:
        """Connect to the VNC server. Raises Denied."""
        self._check_room()
        try:
            channel = await self._hypervisor.open_display(wish.vm)
        except Refused as error:
            raise Denied("no_display", f"the display cannot be opened; does the VM run? ({error.detail})") from error
        except Unreachable as error:
            raise Denied("node_failed", f"libvirt does not answer: {error}", 503) from error
        await self._connect(wish, channel)

    async def close(self) -> None:
        """End all, and say why."""
        for session in self._open.values():
            session.why = "the node daemon is being stopped; the VM runs on"
        await end([session.task for session in list(self._open.values()) if session.task])

    def _check_room(self) -> None:
        if len(self._open) >= MOST:
            raise Denied("node_busy", f"{MOST} people are connected to guests of this node; try again later", 503)

    async def _take(self, wish: Wish) -> None:
        """Make the console of a VM free, if that may be."""
        for session in list(self._open.values()):
            if (session.wish.kind, session.wish.vm) != ("console", wish.vm) or session.task is None:
                continue
            if session.pipe.ended is not None:  # its owner has left, a moment ago
                await asyncio.wait({session.task}, timeout=LEAVING)
            elif wish.force:
                session.why = f"{wish.actor} has taken over"
                await end([session.task])
            else:
                raise in_use(session.wish.actor)

    async def _connect(self, wish: Wish, channel: Channel) -> None:
        here, there = (subjects.session(self._node, wish.session, hearer) for hearer in ("node", "gateway"))
        pipe = Pipe(self._bus, here, there)
        try:
            await pipe.open()
        except BaseException:
            await channel.close()
            raise
        session = Session(wish, pipe, channel)
        self._open[wish.session] = session
        session.task = asyncio.create_task(self._carry(session), name=f"session {wish.session}")

    async def _carry(self, session: Session) -> None:
        """Both ways, until one of them ends."""
        wish, started = session.wish, time.monotonic()
        told = log.bind(kind=wish.kind, vm=wish.vm, session=wish.session, actor=wish.actor)
        told.info("connection opened", force=wish.force)
        ways = [asyncio.create_task(out(session)), asyncio.create_task(into(session))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(ways)
            await session.pipe.close(session.why)
            await session.channel.close()
            del self._open[wish.session]
            told.info("connection closed", why=session.pipe.ended, seconds=round(time.monotonic() - started, 1))


async def out(session: Session) -> None:
    while data := await session.channel.read():
        try:
            await session.pipe.send(data)
        except Ended:
            return


async def into(session: Session) -> None:
    while True:
        try:
            data = await session.pipe.receive()
        except Ended:
            return
        await session.channel.write(data)


def in_use(actor: str) -> Denied:
    return Denied("console_in_use", f"{actor} has this console; force takes it away from them")
