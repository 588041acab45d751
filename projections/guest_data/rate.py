"""Rate limits: a token bucket for each client."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

#: Maximum number of buckets. The one that was used longest ago is removed first; its client gets a full one again.
MOST = 100_000


@dataclass
class Rate:
    """`burst` requests without a pause, then `a_second` requests per second."""

    burst: float
    a_second: float
    _buckets: "OrderedDict[Hashable, tuple[float, float]]" = field(default_factory=OrderedDict)

    def is_left(self, who: Hashable, now: float) -> bool:
        """Whether a request is allowed now, without counting it."""
        remaining, since = self._buckets.get(who, (self.burst, now))
        return min(self.burst, remaining + (now - since) * self.a_second) >= 1

    def allows(self, who: Hashable, now: float) -> bool:
        """Whether a request is allowed now; if so, it is counted. `now`: seconds of a monotonic clock."""
        remaining, since = self._buckets.pop(who, (self.burst, now))
        remaining = min(self.burst, remaining + (now - since) * self.a_second)
        allowed = remaining >= 1
        self._buckets[who] = (remaining - allowed, now)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        return allowed
