"""Common code of the aggregates' read models: one row per aggregate, with its state and the columns that lists filter
by.

A row holds absolute values: the folded state, and the version and position of the aggregate's last event. It does not
hold the operations of the state: they have their own rows, and the row would grow with every command. The state comes
from `domain`'s own `evolve`, so a read model always agrees with the rules about the meaning of an event.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from psycopg.rows import DictRow
from pydantic_core import to_json

from domain.accepted_requests import FIELD
from domain.kind import Kind, Scope
from eventstore.log.envelope import Ref
from projections import bulk
from projections.database import Connection, Mine, Pool, clean_json, fetch, key, parsed, select
from projections.model import Batch, ReadModel, Row, Session, Step
from projections.storage import unsearched

S = TypeVar("S")
V = TypeVar("V", bound=Mapping[str, object])

COMMON = """
    project  text NOT NULL,
    id       text NOT NULL,
    version  int NOT NULL,
    position bigint NOT NULL,
    created  bigint NOT NULL,
    digest   text NOT NULL,
    deleted  boolean NOT NULL,
    state    json NOT NULL,
    shown    text NOT NULL,
    PRIMARY KEY (project, id)
"""
"""The columns of every table of aggregates. `created` is the position of the first event: lists are sorted by it.
`shown` is the API's JSON, which lists consist of.
"""

#: What stands for a NUL character in JSON that Postgres can store.
REPLACED = "\\ufffd"

OWNER = "owner"
"""The column of the project that a resource of the cloud belongs to, for kinds with `Kind.owner`."""


@dataclass(frozen=True)
class Aggregates(Generic[S, V]):
    """The table of one kind, and the two ways to see it: as rows of lists, and as the API's JSON.

    `columns` are the columns that lists filter by, in addition to the common ones; `filters` are conditions on them, by
    the name of the parameter; `view` renders a state, its version and position. Columns and views must not depend on
    the order of a dict's keys. `revision` is the version of the read model. `ended` is the word
    for resources of which `deleted` is true, such as "deleted" or "retired". `kept`: the part of a state that its row
    holds, if another read model has the rest (`ReadModel.completes`).
    """

    of: Kind[S, Any]
    columns: Mapping[str, Callable[[S], object]]
    view: Callable[[S, int, int], V]
    ddl: str
    revision: int = 8
    filters: Mapping[str, str] = field(default_factory=dict)
    ended: str = "deleted"
    kept: Callable[[S], S] = lambda state: state

    @property
    def kind(self) -> str:
        return self.of.name

    @property
    def table(self) -> str:
        return self.of.plural.replace("-", "_")

    @cached_property
    def rows(self) -> bulk.Table:
        """The table as it is written."""
        common = ("project", "id", "version", "position", "created", "digest", "deleted", "state", "shown")
        return bulk.Table.of(self.ddl, self.table, ("project", "id"), (*common, *self.columns))

    @property
    def belongs(self) -> str:
        """The condition for rows that belong to one of the projects `mine`, or to the whole cloud."""
        match self.of.scope:
            case Scope.PROJECT:
                return "project = ANY(%(mine)s)"
            case Scope.ITSELF:
                return "id = ANY(%(mine)s)"
            case Scope.CLOUD:
                return f"({OWNER} IS NULL OR {OWNER} = ANY(%(mine)s))" if OWNER in self.columns else "true"

    @property
    def read_model(self) -> ReadModel[Ref, Row[S]]:
        return ReadModel(
            name=self.table,
            version=self.revision,
            ddl=self.ddl + unsearched(self.table, "digest", "state", "shown"),
            tables=(self.table,),
            kinds=(self.kind,),
            histories=self.load,
            load=self.held,
            fold=fold,
            save=self.save,
            positioned=True,
        )

    def found(self, row: DictRow) -> "Found[S]":
        """The aggregate in a row of a query for COLUMNS. Raises ReadModelsUnavailable."""
        return Found(parsed(self.of.stored, row["state"]), row["version"], row["position"], row["deleted"])

    def shown(self, found: "Found[S]") -> V:
        """The API's JSON of an aggregate."""
        return self.view(found.state, found.version, found.position)

    def render(self, state: S, version: int, position: int) -> V:
        """The API's JSON of a state that was folded from the log: the same as from its row."""
        return self.view(self.of.stored.validate_json(self.stored_json(state)), version, position)

    async def load(self, conn: Connection, refs: Iterable[Ref]) -> dict[Ref, Row[S]]:
        """The rows of these aggregates, as far as they exist."""
        requested, loaded = list(refs), dict[Ref, Row[S]]()
        stored = await select(
            conn,
            bulk.lookup(
                self.table,
                ("project", "id"),
                "project, id, state::text AS state, version, position, created, digest",
            ),
            [[ref.project for ref in requested], [ref.id for ref in requested]],
        )
        for found in stored:
            loaded[Ref(found["project"], self.kind, found["id"])] = Row(
                self.of.stored.validate_json(found["state"]),
                found["version"],
                found["position"],
                found["created"],
                found["digest"],
            )
        return loaded

    async def held(self, _: Connection, batch: Batch) -> dict[Ref, Row[S]]:
        """The rows that the aggregates of a batch have in the table."""
        return {ref: row for ref, row in batch.rows.items() if ref.kind == self.kind and row.state is not None}

    async def save(self, session: Session, before: Mapping[Ref, Row[S]], rows: Mapping[Ref, Row[S]]) -> None:
        """Write the rows that have changed, and replace older ones."""
        new, old = list[bulk.Values](), list[bulk.Values]()
        for ref, row in rows.items():
            if row.state is not None and row is not before.get(ref):
                (old if ref in before else new).append(self._values(ref, row, row.state))
        await bulk.write(session.conn, self.rows, new, old, many=session.many)

    def stored_json(self, state: S) -> str:
        """A state as JSON, as its row has it: without the operations, and without NUL characters."""
        return clean_json(self.of.stored.dump_json(self.kept(state), exclude={FIELD}).decode())

    def _values(self, ref: Ref, row: Row[S], state: S) -> list[Any]:
        text = self.stored_json(state)
        # The view of a text without NUL characters: they are replaced in the state first.
        same = self.of.stored.validate_json(text) if REPLACED in text else state
        return [
            ref.project,
            ref.id,
            row.version,
            row.position,
            row.created,
            row.digest,
            self.of.deleted(state),
            text,
            to_json(self.view(same, row.version, row.position)).decode(),
            *(cleaned(read(state)) for read in self.columns.values()),
        ]


def fold(rows: dict[Ref, Row[S]], step: Step[S]) -> None:
    """Each event changes the row of its aggregate, at least its version and position."""
    if step.row is not None:
        rows[step.recorded.ref] = step.row


def cleaned(value: object) -> object:
    """A value for a column. A text is cut to the limit of an index; the state has all of it."""
    if isinstance(value, list):
        return [cleaned(each) for each in value]
    return key(value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Found(Generic[S]):
    """One aggregate, read from its row."""

    state: S
    version: int
    position: int
    deleted: bool


#: The columns that a query selects for `Aggregates.found`.
COLUMNS = "state::text AS state, version, position, deleted"


async def get(pool: Pool, table: Aggregates[S, Any], ref: Ref, *, mine: Mine) -> tuple[Found[S] | None, int]:
    """One aggregate (None without a row), and the log position that the answer reflects.

    An aggregate of another project than `mine` counts as one without a row. Raises ReadModelsUnavailable.
    """
    condition = "true" if mine is None else table.belongs
    found = await fetch(
        pool,
        f"SELECT {COLUMNS} FROM {table.table} WHERE project = %(project)s AND id = %(id)s AND {condition}",  # noqa: S608
        {"project": ref.project, "id": ref.id, "mine": mine},
    )
    return table.found(found.row) if found.row else None, found.position
