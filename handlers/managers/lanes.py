"""Lanes: items that belong together, for example to one node, have a limited number of slots in common."""

from collections import Counter, OrderedDict


class Lanes:
    """`slots`: maximum number of items of one lane that run at a time. An item without a lane has no such limit."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._running: Counter[str] = Counter()
        self._behind: dict[str, OrderedDict[str, None]] = {}

    def enter(self, lane: str | None, key: str) -> bool:
        """Whether an item may run now. If not, it waits behind the others of its lane."""
        if lane is None:
            return True
        if self._running[lane] >= self._slots:
            self._behind.setdefault(lane, OrderedDict())[key] = None
            return False
        self._running[lane] += 1
        return True

    def leave(self, lane: str | None) -> str | None:
        """An item has ended. Returns the key of the next one that may enter now, if one waits."""
        if lane is None:
            return None
        self._running[lane] -= 1
        if not self._running[lane]:
            del self._running[lane]
        key = next(iter(self._behind.get(lane, ())), None)
        if key is not None:
            self.remove(lane, key)
        return key

    def remove(self, lane: str | None, key: str) -> None:
        """An item does not wait any more."""
        behind = self._behind.get(lane or "")
        if behind is not None:
            behind.pop(key, None)
            if not behind:
                del self._behind[lane or ""]

    def waiting(self) -> list[str]:
        """The keys that wait behind their lanes."""
        return [key for keys in self._behind.values() for key in keys]
