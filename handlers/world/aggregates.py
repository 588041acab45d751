"""The aggregates in memory. Those that have not changed for some time are kept as compact bytes.

A state as objects takes 6 to 12 KiB, as bytes about 1 KiB, and compressed less than half of that: most of them
resemble each other. States of kinds that are read often, or are few (nodes, and
what others refer to), always stay objects. A packed state is unpacked each time that it is read, which takes about as
long as to fold one event; a change makes it objects again.
"""

import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator
from functools import cache
from struct import Struct
from sys import intern
from typing import Any

from domain.kinds import KINDS
from eventstore.log.envelope import Ref
from eventstore.log.store import Loaded, Tip
from handlers.world.codec import CODEC
from handlers.world.typical import typical

#: The kinds whose states are packed after some time: nobody refers to them, and each has a state of its own.
PACKED = frozenset(kind.name for kind in KINDS.values() if kind.usable is None and kind.name != "node")
#: Maximum number of aggregates of these kinds that are kept as objects: the last ones that changed; and that at rest.
#: Under many creates a VM gets its next event up to two seconds later. To pack and unpack it in between would take
#: longer than to fold both events.
MOST_OBJECTS, AT_REST = 8192, 2048
#: The window of the compression, as a power of two: no state repeats what is farther away.
WINDOW = 12
_TIP = Struct(">QQ")


@cache
def dictionary() -> bytes:
    """The bytes that those of most states resemble."""
    return CODEC.pack([*typical()])


@cache
def _compressor() -> "zlib._Compress":
    """Copied for each state, since to make one takes longer."""
    return zlib.compressobj(1, zlib.DEFLATED, -WINDOW, 5, zdict=dictionary())


def packed(loaded: Loaded[Any]) -> bytes:
    """An aggregate as bytes, without its reference. Version and position can be read without the rest."""
    tip, compressor = loaded.tip, _compressor().copy()
    data = compressor.compress(CODEC.pack([tip.digest, tip.time, loaded.state]))
    return b"".join((_TIP.pack(tip.version, tip.position), data, compressor.flush()))


def unpacked(ref: Ref, kept: bytes) -> Loaded[Any]:
    version, position = _TIP.unpack_from(kept)
    decompressor = zlib.decompressobj(-WINDOW, zdict=dictionary())
    digest, time, state = CODEC.unpack(decompressor.decompress(kept[_TIP.size :]))
    return Loaded(state, Tip(ref, version, position, digest, time))


class Aggregates:
    """The aggregates by reference. `of_kind`: the references of those with a state, by kind and id."""

    def __init__(self, most: int = MOST_OBJECTS) -> None:
        self.of_kind: dict[str, dict[str, Ref]] = {kind: {} for kind in KINDS}
        self._most = most
        self._kept: dict[Ref, Loaded[Any]] = {}
        """Those that stay objects."""
        self._recent: OrderedDict[Ref, Loaded[Any]] = OrderedDict()
        """Those that will be packed, the ones that changed first in front."""
        self._packed: dict[Ref, bytes] = {}

    def get(self, ref: Ref) -> Loaded[Any] | None:
        found = self._recent.get(ref) or self._kept.get(ref)
        if found is not None:
            return found
        kept = self._packed.get(ref)
        return unpacked(ref, kept) if kept is not None else None

    def is_there(self, ref: Ref) -> bool:
        """Whether an aggregate has a state."""
        return ref.id in self.of_kind[ref.kind]

    def tip(self, ref: Ref) -> tuple[int, int]:
        """The version and the position of an aggregate, without unpacking it; zeros if there is none."""
        found = self._recent.get(ref) or self._kept.get(ref)
        if found is not None:
            return found.tip.version, found.tip.position
        kept = self._packed.get(ref)
        return _TIP.unpack_from(kept) if kept is not None else (0, 0)

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
            self._pack_oldest()
        return ref

    @property
    def crowded(self) -> bool:
        """Whether more are kept as objects than at rest."""
        return len(self._recent) > AT_REST

    def tidy(self, count: int) -> None:
        """Pack up to so many of those that are not kept as objects at rest."""
        for _ in range(min(count, len(self._recent) - AT_REST)):
            self._pack_oldest()

    def _pack_oldest(self) -> None:
        oldest, loaded = self._recent.popitem(last=False)
        self._packed[oldest] = packed(loaded)

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

    def of_kinds(self, kinds: Collection[str]) -> list[Ref]:
        """The references of all aggregates of some kinds, also of those without a state."""
        return [ref for each in (self._kept, self._recent, self._packed) for ref in each if ref.kind in kinds]

    def states(self, kind: str) -> Iterator[Any]:
        """The states of a kind, in the order of their creation. An aggregate that is removed meanwhile is left out."""
        for ref in list(self.of_kind[kind].values()):
            found = self.get(ref)
            if found is not None and found.state is not None:
                yield found.state

    def copied(self) -> "Copied":
        """A copy, made fast."""
        listed = [list(of_kind.values()) for of_kind in self.of_kind.values()]
        return listed, {**self._kept, **self._recent}, dict(self._packed)

    def rows(self) -> Iterator["Row"]:
        return rows_of(self.copied())

    def restore(self, ref: Ref, listed: bool, kept: bytes) -> Ref:
        """Add an aggregate of `rows`, packed. Returns the one object for its reference that everybody should keep."""
        ref = Ref(intern(ref.project), intern(ref.kind), ref.id)
        if listed:
            self.of_kind[ref.kind][ref.id] = ref
        if ref.kind in PACKED:
            self._packed[ref] = kept
        else:
            self._kept[ref] = unpacked(ref, kept)
        return ref


Copied = tuple[list[list[Ref]], dict[Ref, Loaded[Any]], dict[Ref, bytes]]
"""The references with a state by kind, in the order of their creation; the aggregates that are objects; the others."""
Row = tuple[Ref, bool, Loaded[Any] | bytes]


def rows_of(copied: Copied) -> Iterator[Row]:
    """All aggregates, packed or not, and whether `of_kind` has them: first these by kind and in the order of their
    creation, then the others in the order of their references.
    """
    listed, objects, packed_ = copied
    refs = [ref for of_kind in listed for ref in of_kind]
    others = sorted((objects.keys() | packed_.keys()).difference(refs))
    for found, is_listed in ((refs, True), (others, False)):
        for ref in found:
            yield ref, is_listed, objects.get(ref) or packed_[ref]
