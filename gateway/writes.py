"""What was written through this gateway, so that each caller finds its own writes in every list."""

from collections import OrderedDict
from dataclasses import dataclass, field

#: The most names, and the most pairs of caller and kind, that are remembered.
MOST = 20_000
#: Stands for all kinds.
ANY = "*"


@dataclass
class Writes:
    """The highest position of each: what ids name; what a caller wrote of a kind; anything at all (`newest`).

    Of callers that were forgotten, since many others came after them, the highest position of each kind is kept.
    """

    newest: int = 0
    _named: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _callers: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)
    _forgotten: dict[str, int] = field(default_factory=dict)

    def note(self, actor: str, kind: str, position: int, *ids: str) -> None:
        """A caller changed a resource of a kind at a position, and with it what these ids name."""
        self.newest = max(self.newest, position)
        for id_ in ids:
            self._named[id_] = max(position, self._named.pop(id_, 0))
        while len(self._named) > MOST:
            self._named.popitem(last=False)
        for each in (kind, ANY):
            self._callers[actor, each] = max(position, self._callers.pop((actor, each), 0))
        while len(self._callers) > MOST:
            (_, forgotten), last = self._callers.popitem(last=False)
            self._forgotten[forgotten] = max(last, self._forgotten.get(forgotten, 0))

    def named(self, *ids: str) -> int:
        """Where something that one of the ids names was changed last; 0 where that is not known."""
        return max((self._named.get(id_, 0) for id_ in ids), default=0)

    def by(self, actor: str, kind: str) -> int:
        """Where a caller last changed something of a kind."""
        return self._callers.get((actor, kind), self._forgotten.get(kind, 0))
