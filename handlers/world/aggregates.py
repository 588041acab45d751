"""The aggregates in memory. Those that have not changed for some time are kept as compact bytes.

A state as objects takes 6 to 12 KiB, as bytes about 1 KiB. States of kinds that are read often, or are few (nodes, and
what others refer to), always stay objects. A packed state is unpacked each time that it is read, which takes about as
long as to fold one event; a change makes it objects again.
"""

from collections.abc import Iterator
from sys import intern
from typing import Any

from domain.kinds import KINDS
from eventstore.log.envelope import Ref
from eventstore.log.store import Loaded, Tip
from handlers.world.codec import CODEC

#: The kinds whose states are packed after some time: nobody refers to them, and each has a state of its own.
PACKED = frozenset(kind.name for kind in KINDS.values() if kind.usable is None and kind.name != "node")
#: Maximum number of aggregates of these kinds that are kept as objects: the last ones that changed.
MOST_OBJECTS = 2048


def packed(loaded: Loaded[Any]) -> bytes:
    """An aggregate as bytes, without its reference. The version stands first, for `version_of`."""
    tip = loaded.tip
    return CODEC.pack([tip.version, tip.position, tip.digest, tip.time, loaded.state])


def unpacked(ref: Ref, kept: bytes) -> Loaded[Any]:
    version, position, digest, time, state = CODEC.unpack(kept)
    return Loaded(state, Tip(ref, version, position, digest, time))


def version_of(kept: bytes) -> int:
    """The version of a packed aggregate."""
    return int(kept[kept.index(b",") + 1 : kept.index(b",", kept.index(b",") + 1)])


class Aggregates:
    """The aggregates by reference. `of_kind`: the references of those with a state, by kind and id."""

    def __init__(self, most: int = MOST_OBJECTS) -> None:
        self.of_kind: dict[str, dict[str, Ref]] = {kind: {} for kind in KINDS}
        self._most = most
        self._kept: dict[Ref, Loaded[Any]] = {}
        """Those that stay objects."""
        self._recent: dict[Ref, Loaded[Any]] = {}
        """Those that will be packed, the ones that changed first in front."""
        self._packed: dict[Ref, bytes] = {}

    def get(self, ref: Ref) -> Loaded[Any] | None:
        found = self._recent.get(ref) or self._kept.get(ref)
        if found is not None:
            return found
        kept = self._packed.get(ref)
        return unpacked(ref, kept) if kept is not None else None

    def version(self, ref: Ref) -> int:
        """The version of an aggregate, without unpacking it; 0 if there is none."""
        found = self._recent.get(ref) or self._kept.get(ref)
        if found is not None:
            return found.tip.version
        kept = self._packed.get(ref)
        return version_of(kept) if kept is not None else 0

    def put(self, loaded: Loaded[Any]) -> Ref:
        """Keep an aggregate. Returns the one object for its reference that everybody should keep."""
        ref = self._one(loaded.tip.ref)
        if loaded.state is not None:
            self.of_kind[ref.kind][ref.id] = ref
        if ref.kind not in PACKED:
            self._kept[ref] = loaded
            return ref
        self._packed.pop(ref, None)
        self._recent.pop(ref, None)
        self._recent[ref] = loaded
        if len(self._recent) > self._most:
            oldest = next(iter(self._recent))
            self._packed[oldest] = packed(self._recent.pop(oldest))
        return ref

    def _one(self, ref: Ref) -> Ref:
        known = self.of_kind[ref.kind].get(ref.id)
        return known if known == ref else Ref(intern(ref.project), intern(ref.kind), ref.id)

    def remove(self, ref: Ref) -> None:
        """Remove an aggregate, if there is one."""
        self.of_kind[ref.kind].pop(ref.id, None)
        for each in (self._kept, self._recent, self._packed):
            each.pop(ref, None)

    def ids(self, kind: str) -> list[str]:
        return list(self.of_kind[kind])

    def states(self, kind: str) -> Iterator[Any]:
        """The states of a kind, in the order of their creation. An aggregate that is removed meanwhile is left out."""
        for ref in list(self.of_kind[kind].values()):
            found = self.get(ref)
            if found is not None and found.state is not None:
                yield found.state

    def rows(self) -> Iterator[tuple[Ref, Loaded[Any] | bytes]]:
        """All aggregates: as bytes if they are packed."""
        yield from self._kept.items()
        yield from self._recent.items()
        yield from self._packed.items()
