"""A read model: tables that a replay of the log can fill, and how each message of the log changes their rows.

Each read model is one value in its own file, with its tables and its queries. `books.py` lists all of them; no other
file needs a list. A batch of messages is applied in one transaction:

    load    read the rows that the batch may change
    fold    apply each message, in the order of the log
    save    write the rows that changed, as absolute values
"""

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from domain.base import Event, Sealed
from eventstore.log.envelope import GENESIS, Recorded, Ref
from projections.compare import Difference
from projections.database import Connection

S = TypeVar("S")
K = TypeVar("K")
V = TypeVar("V")


class Secrets(Protocol):
    """The methods of the vault that the read models need."""

    async def seed_secret(self, vm: str, boots: int) -> str: ...

    async def seed_secrets(self, boots_of: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[str]]: ...

    async def unsealed(self, sealed: Sealed) -> bytes: ...


class Row(NamedTuple, Generic[S]):
    """One aggregate, as of the last applied message. `state` is None if no known event has created it."""

    state: S | None = None
    version: int = 0
    position: int = 0
    created: int = 0
    digest: str = GENESIS

    def after(self, state: S | None, recorded: Recorded) -> "Row[S]":
        return Row(state, recorded.version, recorded.position, self.created or recorded.position, recorded.digest)


#: An aggregate without an event.
NO_ROW: Row[Any] = Row()


@dataclass(slots=True)
class Step(Generic[S]):
    """One message of the log, to be applied.

    `event` is None if the message changes only the history of its aggregate. `before`: the state of the aggregate
    before it. `row`: the aggregate after it; None for a malformed message, which is part of no history (`stray`), and
    for an aggregate of an unknown kind.
    """

    recorded: Recorded
    event: Event | None = None
    before: S | None = None
    row: Row[S] | None = None
    stray: bool = False


@dataclass(slots=True)
class Batch:
    """The events of a batch, in the order of the log, and their aggregates as they were before the batch."""

    events: Sequence[tuple[Recorded, Event]]
    rows: Mapping[Ref, Row[Any]]

    def states(self, kind: str) -> dict[Ref, Any]:
        """The states before the batch, of the aggregates of a kind that had one. A new aggregate has no rows yet."""
        return {ref: row.state for ref, row in self.rows.items() if ref.kind == kind and row.state is not None}


@dataclass(frozen=True, slots=True)
class Session:
    """The connection of the only writer of a copy of the read models, and the vault, which some rows need.

    `many`: the batch is large, and the connection is not in a pipeline: rows can be written by COPY (`bulk.py`).
    """

    conn: Connection
    secrets: Secrets
    many: bool = False


@dataclass(frozen=True, slots=True)
class Addition(Generic[K, V]):
    """How the rows of a read model that only adds rows are copied into its table, while a large batch is folded.

    `encoded`: rows in the format of COPY, with these columns (`names`).
    """

    table: str
    names: Sequence[str]
    encoded: Callable[[Mapping[K, V]], bytes]


@dataclass(frozen=True, slots=True)
class ReadModel(Generic[K, V]):
    """One read model. `load` returns its rows for a batch as a dictionary of immutable values, and `fold` changes it.

    Raise `version` whenever a table or the meaning of a row changes: a replay then builds the read model again beside
    the live one. When you remove a read model, raise the version of another one, so that the set counts as newer.
    """

    name: str
    version: int
    #: creates the tables and their indexes. A replay from nothing creates the indexes in the end
    ddl: str
    tables: tuple[str, ...]
    fold: Callable[[dict[K, V], Step[Any]], None]
    #: writes the rows that changed, given the rows before and after the batch
    save: Callable[[Session, Mapping[K, V], Mapping[K, V]], Awaitable[None]]
    load: Callable[[Connection, Batch], Awaitable[dict[K, V]]] | None = None
    #: adds what `load` has read to the states of the aggregates, whose rows do not have it. So it is read with them
    completes: Callable[[Mapping[K, V], dict[Ref, Row[Any]]], None] | None = None
    #: if it only adds rows and never reads them: how a large batch does. `save` writes the rows of a small one
    added: Addition[K, V] | None = None
    #: the names of the indexes that a replay needs: they are created with the tables
    early: tuple[str, ...] = ()
    #: the kinds of aggregates that it follows; None: all, and malformed messages too
    kinds: Collection[str] | None = None
    #: whether the gateway may read it
    served: bool = True
    #: reads the last version, position and digest of these aggregates, if it stores them; the first read model in the
    #: list that has an aggregate counts
    histories: Callable[[Connection, Collection[Ref]], Awaitable[Mapping[Ref, Row[Any]]]] | None = None
    #: whether a row of its first table has the `position` of the message that changed it last
    positioned: bool = False
    #: whether a row may differ from the replay without being wrong
    excuse: Callable[[Session, str, Difference], Awaitable[bool]] | None = None

    @property
    def of_aggregates(self) -> bool:
        """Whether the states of aggregates come from its tables. The other read models are folded from these states."""
        return self.histories is not None or self.completes is not None

    @property
    def creations(self) -> list[str]:
        """The statements that create the tables, and the indexes that a replay needs."""
        tables = [one for one in _statements(self.ddl) if not one.startswith(_INDEX)]
        return [*tables, *(self.indexes[name] for name in self.early)]

    @property
    def indexes(self) -> dict[str, str]:
        """The statements that create the indexes, by the name of the index. A replay from nothing does without them.

        Raises TypeError for a statement with a name of its own, and for two indexes of the same columns.
        """
        named: dict[str, str] = {}
        for one in _statements(self.ddl):
            if one.startswith(_INDEX):
                name, statement = _named(one)
                if named.setdefault(name, statement) != statement:
                    raise TypeError(f"read model {self.name} has two indexes {name}")
        return named

    def follows(self, kind: str | None) -> bool:
        return self.kinds is None or kind in self.kinds


_INDEX = "CREATE INDEX"
_NAMELESS = re.compile(rf"{_INDEX} ON (\w+)( USING \w+)? \(([^()]+)\)")


def _named(index: str) -> tuple[str, str]:
    """The name that Postgres gives to an index, and the statement with that name."""
    found = _NAMELESS.match(index)
    if found is None:
        raise TypeError(f"an index gets its name from its table and columns: {index}")
    table, using, columns = found[1], found[2] or "", found[3]
    name = "_".join([table, *columns.replace(" ", "").split(","), "idx"])
    return name, f"{_INDEX} {name} ON {table}{using} ({columns}){index[found.end() :]}"


def _statements(ddl: str) -> list[str]:
    return [one.strip() for one in ddl.split(";") if one.strip()]


def changes(before: Mapping[K, V], after: Mapping[K, V]) -> dict[K, V]:
    """The entries whose values differ from before the batch."""
    return {key: value for key, value in after.items() if value != before.get(key)}


class Standing(Enum):
    """The versions of stored read models, compared with those of this program."""

    MISSING = auto()
    OLDER = auto()
    SAME = auto()
    NEWER = auto()


def versions(models: Iterable[ReadModel[Any, Any]]) -> dict[str, int]:
    return {model.name: model.version for model in models}


def standing(found: Mapping[str, int] | None, mine: Mapping[str, int]) -> Standing:
    """Compare stored versions with those of this program (`mine`). Newer ones are never replaced by older ones."""
    if found is None:
        return Standing.MISSING
    if any(version > mine.get(name, version) for name, version in found.items()):
        return Standing.NEWER
    if any(version > found.get(name, 0) for name, version in mine.items()):
        return Standing.OLDER
    return Standing.SAME if found.keys() == mine.keys() else Standing.NEWER
