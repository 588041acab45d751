"""Two ends of one connection over core NATS: bytes both ways, in order, none missing, and never more than a window of
them on the way or waiting.

Each end hears one subject and speaks on another. A message is a letter, a number of 8 bytes, and what the letter says:

    D  bytes; the number is how many were sent before them
    T  how many bytes were taken so far; sent again every few seconds, as a sign of life
    E  the end, and in words why

Core NATS promises nothing of a single message. So an end whose bytes do not follow on each other, or that hears nothing
for a while, ends by itself and says so: whoever is connected can connect again, and is never shown a damaged stream.
"""

import asyncio
import contextlib
import struct

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

#: Bytes that may be under way to an end that does not take them, and in one message.
WINDOW, PIECE = 256 * 1024, 32 * 1024
#: Seconds between two signs of life, and those without any after which the other end counts as gone.
BEAT, SILENCE = 2.0, 10.0

_HEAD = struct.Struct(">cQ")

GONE = "the other end does not answer any more"
LOST = "something was lost on the way"


class Ended(Exception):
    """The connection has ended; the text says why."""


class Pipe:
    """One end. `here` is the subject that it hears, `there` the one that the other end hears."""

    def __init__(self, nc: Client, here: str, there: str) -> None:
        self._nc = nc
        self._here = here
        self._there = there
        self._waiting = bytearray()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._sent = self._confirmed = 0  # of ours
        self._received = self._taken = self._told = 0  # of theirs
        self._heard = 0.0
        self._subscription: Subscription | None = None
        self._beating: asyncio.Task[None] | None = None
        #: why it has ended; None while it has not
        self.ended: str | None = None

    async def open(self) -> None:
        """Hear from now on. Raises nats.errors.Error."""
        self._heard = asyncio.get_running_loop().time()
        self._subscription = await self._nc.subscribe(self._here, cb=self._hear)
        self._beating = asyncio.create_task(self._beat())

    async def send(self, data: bytes) -> None:
        """Send all of it; waits while the other end does not take what was sent before. Raises Ended."""
        view = memoryview(data)
        while view:
            while self.ended is None and self._sent - self._confirmed >= WINDOW:
                self._room.clear()
                await self._room.wait()
            if self.ended is not None:
                raise Ended(self.ended)
            piece = view[: min(PIECE, WINDOW - (self._sent - self._confirmed))]
            sent, self._sent = self._sent, self._sent + len(piece)
            await self._say(b"D", sent, bytes(piece))
            view = view[len(piece) :]

    async def receive(self) -> bytes:
        """What has come since the last time, or what comes next. Raises Ended when nothing does any more."""
        while not self._waiting:
            if self.ended is not None:
                raise Ended(self.ended)
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._waiting)
        self._waiting.clear()
        self._taken += len(data)
        if self._taken - self._told >= WINDOW // 4:
            await self._tell()
        return data

    async def close(self, reason: str) -> None:
        """End it, for both. Fine when it has ended."""
        if self.ended is None:
            self._end(reason)
            await self._say(b"E", 0, reason.encode())
        if self._beating is not None:
            self._beating.cancel()
        if self._subscription is not None:
            with contextlib.suppress(NatsError):
                await self._subscription.unsubscribe()
            self._subscription = None

    async def _hear(self, msg: Msg) -> None:
        if len(msg.data) < _HEAD.size or self.ended is not None:
            return
        self._heard = asyncio.get_running_loop().time()
        letter, number = _HEAD.unpack_from(msg.data)
        said = msg.data[_HEAD.size :]
        match letter:
            case b"D" if number == self._received and len(self._waiting) + len(said) <= WINDOW:
                self._received += len(said)
                self._waiting += said
                self._arrived.set()
            case b"D":
                await self.close(LOST)
            case b"T":
                self._confirmed = max(self._confirmed, number)
                self._room.set()
            case b"E":
                self._end(said.decode(errors="replace"))

    def _end(self, reason: str) -> None:
        if self.ended is None:
            self.ended = reason
        self._arrived.set()
        self._room.set()

    async def _beat(self) -> None:
        clock = asyncio.get_running_loop()
        while self.ended is None:
            if clock.time() - self._heard > SILENCE:
                self._end(GONE)
                return
            await self._tell()
            await asyncio.sleep(BEAT)

    async def _tell(self) -> None:
        self._told = self._taken
        await self._say(b"T", self._taken)

    async def _say(self, letter: bytes, number: int, said: bytes = b"") -> None:
        try:
            await self._nc.publish(self._there, _HEAD.pack(letter, number) + said)
        except (NatsError, OSError) as error:
            self._end(f"the bus is away: {error!r}")
