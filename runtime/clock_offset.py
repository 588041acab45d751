"""How much a node's clock differs from this process's clock, computed from heartbeats."""

from collections import deque
from datetime import datetime

#: The newest heartbeats that count, and how many there have to be: one that was held up says nothing.
WINDOW, LEAST = 8, 3


class ClockOffset:
    """Of one node. A heartbeat says when it was sent by the node's clock; it comes later by the way that it took.

    The fastest heartbeat of the window gives the most exact offset. A clock that
    was set is known by its new offset once the heartbeats of before have left the window.
    """

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=WINDOW)

    def note(self, sent: datetime, received: datetime) -> None:
        """Note a heartbeat: the time when it was sent, by the node's clock, and received, by this process's clock."""
        self._late.append((received - sent).total_seconds())

    def seconds(self) -> float | None:
        """Seconds that the node's clock is ahead; below 0, behind. None before there are enough heartbeats."""
        return round(-min(self._late), 3) if len(self._late) >= LEAST else None


def warning(seconds: float | None, bound: float) -> str | None:
    """What to say of an offset beyond the bound, and what to do; None where it is within."""
    if seconds is None or abs(seconds) <= bound:
        return None
    way = "ahead of" if seconds > 0 else "behind"
    return f"the node's clock is {abs(seconds):.1f} s {way} the platform's: keep both set by NTP"
