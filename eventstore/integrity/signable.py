"""Which positions of the log the next checkpoint covers, and which of them it excludes."""

from eventstore.integrity.checkpoints import Checkpoint, LogDigest, Range, written

MOST_EXCLUDED = 256
"""Maximum number of ranges that a checkpoint excludes. With more, it ends earlier, and the next one continues."""


class Signable:
    """The positions that were read and that no checkpoint covers yet."""

    def __init__(self) -> None:
        self._ends: list[tuple[LogDigest, int]] = []
        """The digests at which a checkpoint may end, each with the number of ranges before it."""
        self._ranges: list[Range] = []
        """The positions of messages that handlers did not write."""
        self._extends = False

    def add(self, at: LogDigest, *, genuine: bool) -> None:
        """Add the next position. `genuine`: handlers wrote its message."""
        if genuine:
            if self._ends and self._ends[-1][1] == len(self._ranges):
                self._ends.pop()
            self._ends.append((at, len(self._ranges)))
        elif self._extends:
            self._ranges[-1] = (self._ranges[-1][0], at.position)
        else:
            self._ranges.append((at.position, at.position))
        self._extends = not genuine

    def after(self, position: int) -> tuple[LogDigest | None, list[Range]]:
        """The end of the next checkpoint after a position, and the ranges that it excludes. None: there is none yet."""
        passed = sum(1 for _, last in self._ranges if last <= position)
        self._ranges = self._ranges[passed:]
        self._ends = [(at, count - passed) for at, count in self._ends if at.position > position]
        fitting = [(at, count) for at, count in self._ends if count <= MOST_EXCLUDED]
        if not fitting:
            return None, []
        at, count = fitting[-1]
        return at, self._ranges[:count]

    def allows(self, found: Checkpoint, after: int) -> bool:
        """Whether a checkpoint, the next after position `after`, excludes all messages that handlers did not write, and
        no others.
        """
        before = [(low, high) for low, high in self._ranges if after < low <= found.position]
        return written(before) == found.excluded and all(high < found.position for _, high in before)
