"""A connection of two ends over core NATS: bytes in both directions, in order and complete, with at most a window of
bytes in transit.

Each end subscribes to one subject and publishes on another. A message is a letter, a number of 8 bytes, and data:

    D  data; the number of bytes that were sent before
    T  the number of bytes that were taken so far; repeated every few seconds as a sign of life
    E  the end of the connection; the data are the reason as text

With keys, each message is sealed (`frames.py`): nobody else on the bus can read one or make one.

Core NATS does not guarantee delivery. So an end closes the connection if bytes are missing, or if it receives nothing
for a while. The client can connect again, and never gets a damaged stream.
"""

import asyncio
import contextlib
import struct

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from runtime.bus.frames import Frames

#: Maximum number of bytes that were sent and not taken yet, and of bytes in one message.
WINDOW, PIECE = 256 * 1024, 32 * 1024
#: Seconds between two signs of life, and seconds without one after which the connection ends.
BEAT, SILENCE = 2.0, 10.0

_HEAD = struct.Struct(">cQ")

NOT_ANSWERING = "the other end does not answer any more"
BYTES_LOST = "bytes were lost in transit; connect again"


class Ended(Exception):
    """The connection has ended; the text says why."""


class Pipe:
    """One end. `here`: the subject that it receives on; `there`: the subject of the other end. Until `seal`, messages
    are not sealed.
    """

    def __init__(self, nc: Client, here: str, there: str) -> None:
        self._frames: Frames | None = None
        self._nc = nc
        self._here = here
        self._there = there
        self._waiting = bytearray()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._sent = self._confirmed = 0  # bytes of this end
        self._received = self._taken = self._reported = 0  # bytes of the other end; `_reported` of `_taken`
        self._last_message = 0.0
        self._subscription: Subscription | None = None
        self._beating: asyncio.Task[None] | None = None
        #: why it has ended; None while it has not
        self.ended: str | None = None

    async def open(self) -> None:
        """Subscribe. Raises nats.errors.Error."""
        self._last_message = asyncio.get_running_loop().time()
        self._subscription = await self._nc.subscribe(self._here, cb=self._on_message)
        self._beating = asyncio.create_task(self._beat())

    def seal(self, sending: bytes, receiving: bytes) -> None:
        """From now on all messages are sealed with these keys, and others are ignored. The other end must not have sent
        any before.
        """
        self._frames = Frames(sending, receiving, _HEAD.size)

    async def send(self, data: bytes) -> None:
        """Send the data; waits while the other end has not taken earlier bytes. Raises Ended."""
        view = memoryview(data)
        while view:
            while self.ended is None and self._sent - self._confirmed >= WINDOW:
                self._room.clear()
                await self._room.wait()
            if self.ended is not None:
                raise Ended(self.ended)
            piece = view[: min(PIECE, WINDOW - (self._sent - self._confirmed))]
            sent, self._sent = self._sent, self._sent + len(piece)
            await self._publish(b"D", sent, bytes(piece))
            view = view[len(piece) :]

    async def receive(self) -> bytes:
        """The bytes since the last call, or the next ones. Raises Ended once the connection has ended."""
        while not self._waiting:
            if self.ended is not None:
                raise Ended(self.ended)
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._waiting)
        self._waiting.clear()
        self._taken += len(data)
        if self._taken - self._reported >= WINDOW // 4:
            await self._report_taken()
        return data

    async def close(self, reason: str) -> None:
        """End the connection at both ends. No error if it has ended."""
        if self.ended is None:
            self._end(reason)
            await self._publish(b"E", 0, reason.encode())
        if self._beating is not None:
            self._beating.cancel()
        if self._subscription is not None:
            with contextlib.suppress(NatsError):
                await self._subscription.unsubscribe()
            self._subscription = None

    async def _on_message(self, msg: Msg) -> None:
        found = self._opened(msg.data)
        if found is None or self.ended is not None:
            return
        self._last_message = asyncio.get_running_loop().time()
        letter, number, data = found
        match letter:
            case b"D" if number == self._received and len(self._waiting) + len(data) <= WINDOW:
                self._received += len(data)
                self._waiting += data
                self._arrived.set()
            case b"D":
                await self.close(BYTES_LOST)
            case b"T":
                self._confirmed = max(self._confirmed, number)
                self._room.set()
            case b"E":
                self._end(data.decode(errors="replace"))

    def _opened(self, message: bytes) -> tuple[bytes, int, bytes] | None:
        """The parts of a message; None if the other end did not make it."""
        found = (message[: _HEAD.size], message[_HEAD.size :]) if self._frames is None else self._frames.open(message)
        if found is None or len(found[0]) < _HEAD.size:
            return None
        letter, number = _HEAD.unpack(found[0])
        return letter, number, found[1]

    def _end(self, reason: str) -> None:
        if self.ended is None:
            self.ended = reason
        self._arrived.set()
        self._room.set()

    async def _beat(self) -> None:
        clock = asyncio.get_running_loop()
        while self.ended is None:
            if clock.time() - self._last_message > SILENCE:
                self._end(NOT_ANSWERING)
                return
            await self._report_taken()
            await asyncio.sleep(BEAT)

    async def _report_taken(self) -> None:
        self._reported = self._taken
        await self._publish(b"T", self._taken)

    async def _publish(self, letter: bytes, number: int, data: bytes = b"") -> None:
        head = _HEAD.pack(letter, number)
        try:
            await self._nc.publish(self._there, head + data if self._frames is None else self._frames.seal(head, data))
        except (NatsError, OSError) as error:
            self._end(f"the bus does not answer: {error!r}")
