"""How long the runner pauses after a batch, so that commands and larger transactions get the processor."""

from collections.abc import Sequence
from datetime import datetime

from eventstore.log.envelope import Recorded

#: After a batch of at least so many events, the runner pauses at least so many seconds, so that the next batch is
#: larger.
MANY, LINGER = 8, 0.05
#: While the read models are at most FRESH seconds behind, the runner leaves the processor to commands: for each second
#: of work it pauses REST seconds. Further behind it pauses less, and not at all from LATE seconds on: a reader waits
#: five seconds at most for its own writes.
FRESH, LATE, REST = 2.0, 4.0, 8.0


def pause(batch: Sequence[Recorded], spent: float, now: datetime) -> float:
    """Seconds to pause after a batch that took `spent` seconds.

    Commands need the processor more than reads do, and fewer but larger transactions are more efficient. So with few
    events it pauses as long as the batch took, and with many events longer. Far behind (a long log to replay, or a
    flood): none.
    """
    behind = (now - batch[-1].stored_at).total_seconds()
    if behind >= LATE:
        return 0.0
    if len(batch) < MANY:
        return min(spent, LINGER)
    share = min(1.0, (LATE - behind) / (LATE - FRESH))
    return max(LINGER, REST * spent * share)
