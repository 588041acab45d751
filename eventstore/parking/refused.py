"""Messages of the log that a reader did not take in, until they are parked. Reading does not wait for that."""

import asyncio
from collections import deque
from dataclasses import dataclass

from eventstore.log.envelope import Recorded
from eventstore.log.jetstream import Unavailable
from eventstore.parking.parking import AGAIN, LOG, Parking
from runtime import logs

log = logs.get(__name__)

#: Messages that wait at a time; of those that come then only the position is kept, up to the same number.
MOST_WAITING = 10_000
#: Bytes of the headers that a message that waits is kept with.
MOST_HEADERS = 2048


@dataclass(frozen=True, slots=True)
class Stray:
    """What is kept of a message that waits. The rest stands in the log."""

    position: int
    subject: str
    headers: dict[str, str]
    size: int
    reason: str


class Refused:
    """The messages that wait, the oldest first. While the bus is away, or slow, they do not grow without end."""

    def __init__(self) -> None:
        self._waiting: deque[Stray] = deque()
        self._counted: deque[Stray] = deque(maxlen=MOST_WAITING)
        self._bell = asyncio.Event()

    def put(self, recorded: Recorded, reason: str) -> None:
        """Have a message parked. Beyond the bound it is only counted."""
        few = sum(len(name) + len(value) for name, value in recorded.headers.items()) <= MOST_HEADERS
        full = len(self._waiting) >= MOST_WAITING
        headers = dict(recorded.headers) if few and not full else {}
        stray = Stray(recorded.position, recorded.subject, headers, len(recorded.body), reason)
        (self._counted if full else self._waiting).append(stray)
        self._bell.set()

    async def run(self, parking: Parking) -> None:
        """Park them, for ever; while the bus is away they wait."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            while self._waiting:
                stray = self._waiting[0]
                try:
                    await parking.park(
                        LOG,
                        str(stray.position),
                        subject=stray.subject,
                        position=stray.position,
                        error=stray.reason,
                        headers=stray.headers,
                        size=stray.size,
                    )
                except Unavailable as error:
                    log.warning("message not parked yet", position=stray.position, error=str(error))
                    await asyncio.sleep(AGAIN)
                else:
                    self._waiting.popleft()
            while self._counted:
                one = self._counted.popleft()
                parking.only_count(LOG, subject=one.subject, position=one.position, error=one.reason)
