"""What a read model is: tables that a replay of the log can fill, and how each message of the log changes their rows.

A read model is one value in a file of its own, which also holds its tables and its queries. `books.py` lists them all;
nothing else knows one by its name. A batch of messages is taken in as one transaction:

    load    what the read model holds of everything that the batch touches
    fold    each message, in the order of the log
    save    what has changed, as absolute values
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, Protocol, TypeVar

from domain.base import Event, Sealed
from eventstore.log.envelope import GENESIS, Recorded, Ref
from projections.compare import Difference
from projections.database import Connection

S = TypeVar("S")
K = TypeVar("K")
V = TypeVar("V")

#: From so many rows on COPY is the faster way to insert them. It cannot be part of a pipeline.
COPIED = 16


class Secrets(Protocol):
    """The part of the vault that is needed here."""

    async def seed_secret(self, vm: str, boots: int) -> str: ...

    async def unsealed(self, sealed: Sealed) -> bytes: ...


@dataclass(frozen=True)
class Row(Generic[S]):
    """One aggregate as far as the log has been read. `state` is None where no known event made it."""

    state: S | None = None
    version: int = 0
    position: int = 0
    created: int = 0
    digest: str = GENESIS

    def after(self, state: S | None, recorded: Recorded) -> "Row[S]":
        return Row(state, recorded.version, recorded.position, self.created or recorded.position, recorded.digest)


@dataclass(slots=True)
class Step(Generic[S]):
    """One message of the log, as it is taken in.

    `event` is None where the message changes nothing but the history of its aggregate. `before` is the state of the
    aggregate before it, `row` the aggregate after it: None for a message that is part of no history (a `stray`), and
    for an aggregate of a kind that is not known here.
    """

    recorded: Recorded
    event: Event | None = None
    before: S | None = None
    row: Row[S] | None = None
    stray: bool = False


@dataclass(slots=True)
class Batch:
    """Messages that are events, in the order of the log, and the aggregates that they are of, as they were before."""

    events: Sequence[tuple[Recorded, Event]]
    rows: Mapping[Ref, Row[Any]]

    def refs(self, kind: str) -> list[Ref]:
        return [ref for ref in self.rows if ref.kind == kind]


@dataclass(frozen=True, slots=True)
class Session:
    """The only writer of one copy of the read models, and the vault, which some rows are made with."""

    conn: Connection
    secrets: Secrets


@dataclass(frozen=True, slots=True)
class ReadModel(Generic[K, V]):
    """One read model. What it holds of a batch is a dictionary, which `fold` changes and whose values are immutable.

    `version` rises whenever a table or the meaning of a row changes: a replay then makes it anew beside the live one.
    Whoever removes a read model raises the version of another one, so that this counts as newer.
    """

    name: str
    version: int
    ddl: str
    tables: tuple[str, ...]
    fold: Callable[[dict[K, V], Step[Any]], None]
    #: writes what was loaded and what it has become
    save: Callable[[Session, Mapping[K, V], Mapping[K, V]], Awaitable[None]]
    load: Callable[[Connection, Batch], Awaitable[dict[K, V]]] | None = None
    #: the kinds of the aggregates that it follows; None: all, and messages that are no events as well
    kinds: Collection[str] | None = None
    #: whether the gateway may read it
    served: bool = True
    #: where each of these aggregates stands, as far as it keeps that; whoever comes first in the list is asked first
    histories: Callable[[Connection, Collection[Ref]], Awaitable[Mapping[Ref, Row[Any]]]] | None = None
    #: whether a row of its first table has the `position` of the message that changed it last
    positioned: bool = False
    #: whether a row of this table may differ from one that was just made from the log, without being wrong
    excuse: Callable[[Session, str, Difference], Awaitable[bool]] | None = None

    def follows(self, kind: str | None) -> bool:
        return self.kinds is None or kind in self.kinds


def changes(before: Mapping[K, V], after: Mapping[K, V]) -> dict[K, V]:
    """What is another value after a batch than before it."""
    return {key: value for key, value in after.items() if value != before.get(key)}


class Standing(Enum):
    """What a stored set of read models is to this program."""

    MISSING = auto()
    OLDER = auto()
    SAME = auto()
    NEWER = auto()


def versions(models: Iterable[ReadModel[Any, Any]]) -> dict[str, int]:
    return {model.name: model.version for model in models}


def standing(found: Mapping[str, int] | None, mine: Mapping[str, int]) -> Standing:
    """How stored versions compare with those of this program. Newer ones are never replaced by older ones."""
    if found is None:
        return Standing.MISSING
    if any(version > mine.get(name, version) for name, version in found.items()):
        return Standing.NEWER
    if any(version > found.get(name, 0) for name, version in mine.items()):
        return Standing.OLDER
    return Standing.SAME if found.keys() == mine.keys() else Standing.NEWER
