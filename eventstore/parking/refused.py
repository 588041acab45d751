"""Messages of the log that a reader has refused, and that wait to be parked. The reader does not wait for that."""

import asyncio
from collections import deque
from dataclasses import dataclass

from eventstore.log.envelope import Recorded
from eventstore.log.jetstream import Unavailable
from eventstore.parking.parking import AGAIN, LOG, Parking
from runtime import logs

log = logs.get(__name__)

#: Maximum number of waiting messages. Further messages, up to the same number, are only counted.
MOST_WAITING = 10_000
#: Larger headers of a waiting message are not stored; in bytes.
MOST_HEADERS = 2048


@dataclass(frozen=True, slots=True)
class Stray:
    """The data about a waiting message. Its body is in the log."""

    position: int
    subject: str
    headers: dict[str, str]
    size: int
    reason: str


class Refused:
    """The waiting messages, the oldest first. Their number is limited while the bus does not answer or is slow."""

    def __init__(self) -> None:
        self._waiting: deque[Stray] = deque()
        self._counted: deque[Stray] = deque(maxlen=MOST_WAITING)
        self._added = asyncio.Event()

    def put(self, recorded: Recorded, reason: str) -> None:
        """Add a message to park. If too many wait, it is only counted."""
        few = sum(len(name) + len(value) for name, value in recorded.headers.items()) <= MOST_HEADERS
        full = len(self._waiting) >= MOST_WAITING
        headers = dict(recorded.headers) if few and not full else {}
        stray = Stray(recorded.position, recorded.subject, headers, len(recorded.body), reason)
        (self._counted if full else self._waiting).append(stray)
        self._added.set()

    def is_empty(self) -> bool:
        """Whether all messages were parked or counted."""
        return not self._waiting and not self._counted

    async def run(self, parking: Parking) -> None:
        """Park the waiting messages, for ever. While the bus does not answer they wait."""
        while True:
            await self._added.wait()
            self._added.clear()
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
                    log.warning(
                        "cannot park a message yet; it will try again", position=stray.position, error=str(error)
                    )
                    await asyncio.sleep(AGAIN)
                else:
                    self._waiting.popleft()
            while self._counted:
                one = self._counted.popleft()
                parking.only_count(LOG, subject=one.subject, position=one.position, error=one.reason)
