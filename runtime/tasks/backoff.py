"""How long to wait before the next try."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

#: Maximum number of doublings: each `last` is reached before, and no number overflows.
_MOST_DOUBLED = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds between two tries: `first`, doubled at each failure up to `last`, reduced by a random
    share (`jitter`).
    """

    first: float
    last: float
    jitter: float = 0.5
    """Maximum share of the pause that is taken off: 0 nothing, 1 all of it."""

    def after(self, failures: int) -> float:
        """Seconds to wait after so many consecutive failures (1 or more)."""
        whole = min(self.first * 2.0 ** min(failures - 1, _MOST_DOUBLED), self.last)
        return whole * (1.0 - self.jitter * random.random())  # noqa: S311  (no secret)

    def pauses(self) -> Iterator[float]:
        """The pauses after the first failure, the second one, and so on, for ever."""
        return map(self.after, itertools.count(1))
