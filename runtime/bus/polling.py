"""When a reader of a stream looks at it every few milliseconds, instead of hearing of each message.

While many messages come, to hear of each of them costs the server and the reader more than it helps.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from runtime.tasks.tasks import happens

T_co = TypeVar("T_co", covariant=True)

#: A reader begins to look by itself when BUSY messages came within WINDOW seconds.
BUSY, WINDOW = 32, 0.05
#: Seconds between two looks; and when somebody waits for a message that the stream has.
REST, SHORT_REST = 0.01, 0.003
#: A reader hears of messages again after CALM looks in a row with fewer than FEW messages.
FEW, CALM = 6, 5
#: Seconds between two looks at a stream if nobody but this process seems to write there.
SELDOM = 0.05


class Own(Protocol[T_co]):
    """The messages of a stream that this process has stored itself. A reader need not read them."""

    #: the number of messages that were read, and that others had stored
    others: int
    #: called when somebody waits for messages that are not known
    on_wait: Callable[[], None]

    def following(self, after: int) -> Sequence[T_co]:
        """Those at the positions directly after this one."""

    def lacks(self, after: int) -> bool:
        """Whether a reader that has come up to this position has to read the stream now."""


class Polling:
    """Whether to look by itself (`looks`), by the number of messages that came."""

    def __init__(self) -> None:
        self.looks = False
        self.calm = 0
        """The number of looks in a row with few messages."""
        self._since, self._count = 0.0, 0
        """When the present window began, and how many messages came since then."""
        self._awaited = asyncio.Event()

    def begins(self, count: int) -> bool:
        """Count messages that the reader has heard of. Returns whether it should look by itself from now on."""
        now = asyncio.get_running_loop().time()
        if now - self._since > WINDOW:
            self._since, self._count = now, 0
        self._count += count
        if self._count >= BUSY:
            self.looks, self.calm = True, 0
        return self.looks

    def note(self, count: int) -> None:
        """Count the messages of one look."""
        self.calm = self.calm + 1 if count < FEW else 0

    def end(self) -> None:
        """Hear of each message again."""
        self.looks, self._since, self._count = False, 0.0, 0

    def hurry(self) -> None:
        """Look soon."""
        self._awaited.set()

    async def rest(self) -> None:
        """Wait until the next look."""
        await asyncio.sleep(SHORT_REST)
        await happens(self._awaited, REST - SHORT_REST)
        self._awaited.clear()


def ignore() -> None:
    """Nobody reads."""
