"""How much a node's clock differs from this process's clock, computed from heartbeats."""

from collections import deque
from datetime import datetime

#: Number of newest heartbeats that count, and the minimum number: a single heartbeat may be delayed.
WINDOW, LEAST = 8, 3


class ClockOffset:
    """The clock offset of one node. A heartbeat has the time of sending by the node's clock, and arrives with a delay.

    The fastest heartbeat of the window gives the most exact offset. After a clock was set, the new offset is known once
    all earlier heartbeats have left the window.
    """

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=WINDOW)

    def note(self, sent: datetime, received: datetime) -> None:
        """Note a heartbeat: the time when it was sent, by the node's clock, and received, by this process's clock."""
        self._late.append((received - sent).total_seconds())

    def seconds(self) -> float | None:
        """Seconds by which the node's clock is ahead; negative if it is behind. None until there
        are enough heartbeats.
        """
        return round(-min(self._late), 3) if len(self._late) >= LEAST else None


def warning(seconds: float | None, bound: float) -> str | None:
    """The warning about an offset of more than `bound` seconds, and what to do; None if there is no reason."""
    if seconds is None or abs(seconds) <= bound:
        return None
    way = "ahead of" if seconds > 0 else "behind"
    return f"the node's clock is {abs(seconds):.1f} s {way} the platform's: keep both set by NTP"
