"""Positions of writes through this gateway, so that callers find their own writes in every list."""

from collections import OrderedDict
from dataclasses import dataclass, field

#: The maximum number of ids, and of pairs of caller and kind, that are kept.
MOST = 20_000
#: Stands for all kinds.
ANY = "*"


@dataclass
class Writes:
    """The highest position of writes: by the id of a resource; by caller and kind; of all (`newest`).

    When there are too many callers, the oldest are removed. Of these, the highest position of each kind is kept.
    """

    newest: int = 0
    _named: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _callers: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)
    _removed: dict[str, int] = field(default_factory=dict)

    def note(self, actor: str, kind: str, position: int, *ids: str) -> None:
        """Note that a caller changed a resource of a kind at a position. `ids`: all resources that this concerns."""
        self.newest = max(self.newest, position)
        for id_ in ids:
            self._named[id_] = max(position, self._named.pop(id_, 0))
        while len(self._named) > MOST:
            self._named.popitem(last=False)
        for each in (kind, ANY):
            self._callers[actor, each] = max(position, self._callers.pop((actor, each), 0))
        while len(self._callers) > MOST:
            (_, removed), last = self._callers.popitem(last=False)
            self._removed[removed] = max(last, self._removed.get(removed, 0))

    def named(self, *ids: str) -> int:
        """The highest position of a write to one of these ids; 0 if unknown."""
        return max((self._named.get(id_, 0) for id_ in ids), default=0)

    def by(self, actor: str, kind: str) -> int:
        """The highest position of a caller's write to a kind."""
        return self._callers.get((actor, kind), self._removed.get(kind, 0))
