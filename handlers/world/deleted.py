"""The ids of deleted VMs: sixteen bytes for each, since they are kept for ever."""

import re
from collections.abc import Iterable, Iterator

from domain.patterns import UUID

_UUID = re.compile(UUID)
_REST = 15
"""Bytes of an id without the first one, which names its group."""


class DeletedIds:
    """A set of ids, in no particular order. Ids that are no UUIDs are kept as they are."""

    def __init__(self) -> None:
        self._groups: dict[bytes, bytearray] = {}
        """The rest of each id, one after the other, by the first byte of the ids."""
        self._others: set[str] = set()
        self._count = 0

    def add(self, id_: str) -> None:
        if id_ in self:
            return
        if not _UUID.fullmatch(id_):
            self._others.add(id_)
            return
        raw = bytes.fromhex(id_.replace("-", ""))
        self._groups.setdefault(raw[:1], bytearray()).extend(raw[1:])
        self._count += 1

    def __contains__(self, id_: object) -> bool:
        if not isinstance(id_, str) or not _UUID.fullmatch(id_):
            return id_ in self._others
        raw = bytes.fromhex(id_.replace("-", ""))
        group = self._groups.get(raw[:1])
        if group is None:
            return False
        rest, at = raw[1:], group.find(raw[1:])
        while at % _REST:  # it was found across two ids; -1 % 15 is 14
            if at < 0:
                return False
            at = group.find(rest, at + 1)
        return True

    def __rand__(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that are in the set."""
        return {id_ for id_ in ids if id_ in self}

    def __len__(self) -> int:
        return self._count + len(self._others)

    def __iter__(self) -> Iterator[str]:
        yield from self._others
        for first, group in self._groups.items():
            for at in range(0, len(group), _REST):
                text = (first + group[at : at + _REST]).hex()
                yield f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def copied(self) -> "Packed":
        """A copy, made fast; `in_order` puts it in order."""
        return [(first, bytes(group)) for first, group in self._groups.items()], list(self._others)

    def restore(self, packed: "Packed") -> None:
        """Add all ids of a copy to an empty set."""
        groups, others = packed
        self._groups = {first: bytearray(rests) for first, rests in groups}
        self._count = sum(map(len, self._groups.values())) // _REST
        self._others = set(others)


Packed = tuple[list[tuple[bytes, bytes]], list[str]]
"""The ids in groups, and those that are no UUIDs."""


def in_order(packed: Packed) -> Packed:
    """The same ids in a form that depends on the ids alone."""
    groups, others = packed
    return [(first, b"".join(sorted(_rests(group)))) for first, group in sorted(groups)], sorted(others)


def _rests(group: bytes) -> Iterator[bytes]:
    return (group[at : at + _REST] for at in range(0, len(group), _REST))
