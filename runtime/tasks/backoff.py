"""How long to wait before the next try."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

#: Times that a pause is doubled: any `last` is reached by then, and no number overflows.
_MOST_DOUBLED = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds between two tries: `first` doubled at each failure up to `last`, less a random part of up to `jitter`."""

    first: float
    last: float
    jitter: float = 0.5
    """0 takes off nothing, 1 up to everything."""

    def after(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, at least one, however many there were."""
        whole = min(self.first * 2.0 ** min(failures - 1, _MOST_DOUBLED), self.last)
        return whole * (1.0 - self.jitter * random.random())  # noqa: S311  (no secret)

    def pauses(self) -> Iterator[float]:
        """What `after` says of the first failure, the second one, and so on for ever: ask with `next`."""
        return map(self.after, itertools.count(1))
