"""How often each of many may ask: a bucket of tokens for each, which fills again with time."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

#: Buckets that are remembered. Whoever asked longest ago is forgotten first, and has a full one again.
MOST = 100_000


@dataclass
class Rate:
    """`burst` times at once, and `a_second` from then on."""

    burst: float
    a_second: float
    _buckets: "OrderedDict[Hashable, tuple[float, float]]" = field(default_factory=OrderedDict)

    def is_left(self, who: Hashable, now: float) -> bool:
        """Whether it may ask now; nothing is counted."""
        left, since = self._buckets.get(who, (self.burst, now))
        return min(self.burst, left + (now - since) * self.a_second) >= 1

    def allows(self, who: Hashable, now: float) -> bool:
        """Whether it may ask now; if so, that is counted. `now` in seconds, of a clock that never goes back."""
        left, since = self._buckets.pop(who, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.a_second)
        allowed = left >= 1
        self._buckets[who] = (left - allowed, now)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        return allowed
