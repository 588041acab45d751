"""The whole content of a world at a position, as messages of MessagePack, and back.

A copy (`Contents`) is made in one step, and has only values that never change. It takes a few milliseconds for each
10,000 VMs. Its messages are made later, while the world goes on. Worlds that know the same have the same messages, in
whatever way they came to know it: nothing in them depends on the order of a set, or on what happens to be packed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec

from domain.base import Category, Rejected
from domain.references import Reference, Users
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.store import Loaded
from handlers.world import aggregates
from handlers.world.aggregates import packed, unpacked
from handlers.world.references import Deletion
from handlers.world.vms import Copied, in_order
from handlers.world.world import World

#: Number of aggregates in one message.
ROWS = 200

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder[Any]().decode


@dataclass(frozen=True)
class Contents:
    """A copy of a world after the event at `position`, whose digest is `digest`."""

    position: int
    digest: str
    aggregates: aggregates.Copied
    users: list[tuple[Reference, list[Ref]]]
    forgotten: list[tuple[Ref, Loaded[Any]]]
    void: list[tuple[str, Rejected]]
    deletions: list[tuple[Ref, Deletion]]
    vms: Copied
    """What is derived from the states of VMs."""


def copied(world: World) -> Contents:
    """A copy of the world now. No aggregate may be ahead of its position."""
    last = world.newest
    assert last is not None and last.position == world.position, "the world was not read from the log"
    references = world.references
    return Contents(
        position=last.position,
        digest=last.digest,
        aggregates=world.aggregates.copied(),
        users=references.copied(),
        forgotten=[(loaded.tip.ref, loaded) for loaded in world.forgotten.values()],
        void=list(references.void.items()),
        deletions=list(references.deletions.items()),
        vms=world.vm_index.copied(),
    )


def messages(contents: Contents) -> Iterator[bytes]:
    """The messages, one after the other. Each takes some milliseconds. Raises CannotPack."""
    numbers: dict[Ref, int] = {}
    rows = aggregates.rows_of(contents.aggregates)
    while some := list(islice(rows, ROWS)):
        part = []
        for ref, listed, kept in some:
            numbers[ref] = len(numbers)
            part.append((*ref, listed, kept if isinstance(kept, bytes) else packed(kept)))
        yield _encode(("rows", part))
    yield _encode(("vms", in_order(contents.vms)))
    yield _encode(("forgotten", [(*ref, packed(loaded)) for ref, loaded in contents.forgotten]))
    yield _encode(("void", [(id_, rejection(reason)) for id_, reason in contents.void]))
    yield _encode(("deletions", [(*ref, deletion_row(deletion)) for ref, deletion in contents.deletions]))
    for reference, refs in sorted(contents.users):
        yield _encode(("users", (*reference, sorted(numbers[ref] for ref in refs))))


class Restored:
    """An empty world that is filled with the messages of a copy, one after the other."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._refs: list[Ref] = []

    def add(self, message: bytes) -> None:
        world, references = self._world, self._world.references
        name, found = _decode(message)
        match name:
            case "rows":
                add = world.aggregates.restore
                self._refs += [add(Ref(project, kind, id_), listed, kept) for project, kind, id_, listed, kept in found]
            case "vms":
                world.vm_index.restore(found)
            case "forgotten":
                for project, kind, id_, kept in found:
                    world.forgotten[id_] = unpacked(Ref(project, kind, id_), kept)
            case "void":
                references.void.update((id_, rejected(reason)) for id_, reason in found)
            case "deletions":
                for project, kind, id_, row in found:
                    references.deletions[Ref(project, kind, id_)] = deletion_of(row)
            case "users":
                kind, id_, numbers = found
                references.restore(Reference(kind, id_), (self._refs[number] for number in numbers))
            case _:
                raise ValueError(f"a snapshot has no part {name}")

    def finish(self, position: int) -> World:
        """The world, after all messages of a copy at a position."""
        self._world.restored(position)
        return self._world


def rejection(reason: Rejected) -> tuple[str, str, str, str | None]:
    return reason.code, reason.detail, reason.category.value, reason.field


def rejected(row: list[Any]) -> Rejected:
    code, detail, category, field = row
    return Rejected(code, detail, Category(category), field=field)


def deletion_row(deletion: Deletion) -> tuple[Any, ...]:
    begun = deletion.begun
    users = sorted((kind, sorted(ids)) for kind, ids in deletion.users.ids.items())
    return begun.position, begun.subject, sorted(begun.headers.items()), begun.body, users


def deletion_of(row: list[Any]) -> Deletion:
    position, subject, headers, body, users = row
    begun = Recorded(position, subject, dict(headers), body, datetime.fromtimestamp(0, UTC), ours=True)
    return Deletion(begun, Users(ids={kind: tuple(ids) for kind, ids in users}))
