"""How long the runner pauses after a batch, so that commands and larger transactions get the processor."""

from collections import deque
from datetime import datetime

#: After a batch of at least so many events, the runner pauses LINGER seconds, so that the next batch is larger. After a
#: smaller one, it pauses as long as the batch took. It never pauses longer than LINGER.
MANY, LINGER = 8, 0.05
#: If the newest event of the batch was stored more than LATE seconds ago, the pause is shorter by the difference: a
#: reader waits for the read models then.
LATE = 0.1
#: It does not pause while fewer than BUSY events came within WINDOW seconds. So the events of one operation, which
#: follow each other within milliseconds, do not wait for each other's pauses.
BUSY, WINDOW = 16, 0.05


class Recent:
    """The number of events of the last WINDOW seconds."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, int]] = deque()

    def note(self, size: int, clock: float) -> int:
        """Count a batch that ends now, at `clock` seconds. Returns the number with it."""
        self._batches.append((clock, size))
        while self._batches[0][0] <= clock - WINDOW:
            self._batches.popleft()
        return sum(each for _, each in self._batches)


def pause(size: int, newest: datetime, spent: float, now: datetime, recent: int) -> float:
    """Seconds to pause after a batch of `size` events that took `spent` seconds; at most LINGER.

    `newest`: when its last event was stored. `recent`: number of recent events.

    Few but large transactions are more efficient, and meanwhile commands get the processor. An event waits for the
    batch before it, for the pause, and for its own batch. So the pause is limited, whatever a batch took. The process
    has no lower priority than those that decide commands: in a burst of creates it would get no processor for a second.
    """
    if recent < BUSY:
        return 0.0
    late = (now - newest).total_seconds() - LATE
    wanted = LINGER if size >= MANY else min(spent, LINGER)
    return max(0.0, wanted - max(0.0, late))
