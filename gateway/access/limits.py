"""Token buckets: how many refusals one address or credential may cause."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

#: Maximum number of buckets; those that were used least recently are removed.
MOST = 10_000


@dataclass
class Buckets:
    """One bucket per name. Each holds as many as are added in a minute, and is full at first.

    `clock`: seconds, by a monotonic clock.
    """

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, name: str) -> int:
        """Take one. Returns 0; or if the bucket is empty, the seconds until there is one."""
        now = self.clock()
        left, at = self._left.pop(name, (float(self.per_minute), now))
        rate = self.per_minute / 60
        left = min(float(self.per_minute), left + (now - at) * rate)
        taken = left >= 1
        self._left[name] = (left - taken, now)
        while len(self._left) > MOST:
            self._left.popitem(last=False)
        return 0 if taken else max(1, math.ceil((1 - left) / rate))
