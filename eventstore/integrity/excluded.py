"""The positions that signed checkpoints exclude: handlers did not write the messages there."""

from bisect import bisect_right

from eventstore.integrity.checkpoints import Checkpoint, Keys, Range


class Excluded:
    """Ranges of positions, collected before the log is read."""

    def __init__(self) -> None:
        self._ranges: list[Range] = []

    def add(self, checkpoint: Checkpoint, keys: Keys | None) -> None:
        """Add what a checkpoint excludes, unless none of the keys signed it. Without keys, all checkpoints count."""
        if keys is None or checkpoint.signed_by(keys):
            self._ranges.extend(checkpoint.excluded_ranges)
            self._ranges.sort()

    def __contains__(self, position: int) -> bool:
        index = bisect_right(self._ranges, (position, 2**63)) - 1
        return index >= 0 and self._ranges[index][1] >= position

    def touches(self, first: int, last: int) -> bool:
        """Whether a position of a range is excluded."""
        index = bisect_right(self._ranges, (last, 2**63)) - 1
        return index >= 0 and self._ranges[index][1] >= first
