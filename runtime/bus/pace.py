"""When a request that is safe to repeat is sent again: as TCP does it (RFC 6298), by the times of earlier answers.

A process that is killed takes the requests with it that it has received. Nobody tells the callers, so they wait for a
while, and send the request again, which another process answers. The while is short where answers are quick, and
longer where they are slow: so a busy platform is not flooded with repeats.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from nats.aio.msg import Msg

#: Seconds until a request is sent again as long as no answer is known, as in TCP: a process may have to begin first.
UNKNOWN = 1.0
#: Shares of a new time in the mean and in the deviation; deviations above the mean until a request is sent again.
NEW, NEW_DEVIATION, DEVIATIONS = 1 / 8, 1 / 4, 4


class Pace:
    """The times of answers. `least`, `most`: bounds, in seconds, of the time until a request is sent again."""

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, most
        self._mean: float | None = None
        self._deviation = 0.0

    def note(self, seconds: float) -> None:
        """An answer took so long, from the message that it answers."""
        if self._mean is None:
            self._mean, self._deviation = seconds, seconds / 2
            return
        self._deviation += (abs(seconds - self._mean) - self._deviation) * NEW_DEVIATION
        self._mean += (seconds - self._mean) * NEW

    @property
    def seconds(self) -> float:
        """How long to wait for an answer until the request is sent again."""
        expected = UNKNOWN if self._mean is None else self._mean + DEVIATIONS * self._deviation
        return min(max(expected, self._least), self._most)

    def pauses(self) -> Iterator[float]:
        """The seconds between the messages of one request while there is no answer: each pause is twice the last."""
        pause = self.seconds
        while True:
            yield pause
            pause *= 2


class Repeating(Protocol):
    """A connection that can repeat requests (`QuickClient`)."""

    async def request_again(
        self, subject: str, payload: bytes, timeout: float, pace: Pace, headers: dict[str, Any] | None = None
    ) -> Msg: ...
