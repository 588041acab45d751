"""Compares two copies of the read models: which tables differ, and in which rows and columns."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql
from psycopg.rows import DictRow

from projections.database import Connection

#: How many rows of a table are named; the others are only counted.
MOST = 20
#: Rows that are fetched at a time.
PAGE = 2000
#: Columns that a replay cannot derive.
IGNORED = frozenset({("checkpoint", "updated_at")})

Excuse = Callable[[str, "Difference"], Awaitable[bool]]
"""Whether a difference in a table has a reason that is not an error."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One row. `what`: `missing` (only the replay has it), `extra` (only the live copy has it), or `differs`."""

    key: Mapping[str, object]
    what: str
    columns: tuple[str, ...] = ()


@dataclass(slots=True)
class TableDifference:
    """A table that differs: the number of different rows, and the first of them."""

    table: str
    count: int = 0
    rows: list[Difference] = field(default_factory=list)
    #: columns that only one copy has, and columns whose types differ
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of a table with their types, and its key."""

    columns: Mapping[str, str]
    key: tuple[str, ...]


@contextlib.asynccontextmanager
async def snapshot(conn: Connection) -> AsyncIterator[None]:
    """All reads inside see the database at one moment."""
    async with conn.transaction():
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


async def shapes(conn: Connection, schema: str) -> dict[str, Shape]:
    """The tables of a copy. The key of a table without a primary key is all of its columns."""
    cursor = await conn.execute(
        """SELECT c.relname AS table, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type,
                  coalesce(a.attnum = ANY (i.indkey), false) AS key
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
           WHERE n.nspname = %s AND c.relkind = 'r' ORDER BY c.relname, a.attnum""",
        [schema],
    )
    rows: dict[str, list[DictRow]] = {}
    for row in await cursor.fetchall():
        rows.setdefault(row["table"], []).append(row)
    return {
        table: Shape(
            {row["column"]: row["type"] for row in of if (table, row["column"]) not in IGNORED},
            tuple(row["column"] for row in of if row["key"]) or tuple(row["column"] for row in of),
        )
        for table, of in rows.items()
    }


async def differing(
    live: Connection,
    live_schema: str,
    replayed: Connection,
    replayed_schema: str,
    tables: Iterable[str] | None = None,
    excuse: Excuse | None = None,
) -> list[TableDifference]:
    """The tables of the live copy that differ from the replay (`replayed`), in the order of their names.

    `tables`: compare only these; None: every table of both copies. `live` must be in a transaction, so that its rows do
    not change during the comparison.
    """
    live_shapes, replayed_shapes = await shapes(live, live_schema), await shapes(replayed, replayed_schema)
    found = []
    async with replayed.transaction():
        for table in sorted(live_shapes.keys() | replayed_shapes.keys()) if tables is None else tables:
            one = await _table(
                table,
                _Side(live, live_schema, live_shapes.get(table)),
                _Side(replayed, replayed_schema, replayed_shapes.get(table)),
                excuse,
            )
            if one is not None:
                found.append(one)
    return found


@dataclass(frozen=True, slots=True)
class _Side:
    conn: Connection
    schema: str
    shape: Shape | None


async def _table(table: str, live: _Side, replayed: _Side, excuse: Excuse | None) -> TableDifference | None:
    if live.shape is None or replayed.shape is None:
        known = live.shape or replayed.shape
        return TableDifference(table, columns=tuple(known.columns) if known else ())
    live_columns, replayed_columns = live.shape.columns, replayed.shape.columns
    unequal = tuple(
        sorted(
            name
            for name in live_columns.keys() | replayed_columns.keys()
            if live_columns.get(name) != replayed_columns.get(name)
        )
    )
    columns = [name for name in replayed_columns if name not in unequal]
    key = [name for name in replayed.shape.key if name in columns]
    if not unequal:
        ours, replays = await asyncio.gather(_digest(table, live, columns), _digest(table, replayed, columns))
        if ours == replays:
            return None
    found = TableDifference(table, columns=unequal)
    async for difference in _rows(table, live, replayed, key, columns):
        if excuse is None or not await excuse(table, difference):
            found.count += 1
            if len(found.rows) < MOST:
                found.rows.append(difference)
    return found if found.count or unequal else None


async def _digest(table: str, side: _Side, columns: list[str]) -> tuple[Any, ...]:
    """The number of rows, and two sums over digests of all of them."""
    statement = sql.SQL(
        """SELECT count(*) AS n, sum(('x' || left(d, 16))::bit(64)::bigint::numeric) AS one,
                  sum(('x' || right(d, 16))::bit(64)::bigint::numeric) AS two
           FROM (SELECT md5(ROW({columns})::text) AS d FROM {table}) rows"""
    ).format(columns=_names(columns), table=sql.Identifier(side.schema, table))
    row = await (await side.conn.execute(statement)).fetchone()
    assert row is not None
    return row["n"], row["one"], row["two"]


async def _rows(
    table: str, live: _Side, replayed: _Side, key: list[str], columns: list[str]
) -> AsyncGenerator[Difference]:
    """The rows that differ, in the order of their keys."""
    live_columns, replayed_columns = _stream(table, live, key, columns), _stream(table, replayed, key, columns)
    async with contextlib.aclosing(live_columns), contextlib.aclosing(replayed_columns):
        live_row, replayed_row = await anext(live_columns, None), await anext(replayed_columns, None)
        while live_row is not None or replayed_row is not None:
            if replayed_row is None or (live_row is not None and live_row["k"] < replayed_row["k"]):
                assert live_row is not None
                yield Difference(live_row["key"], "extra")
                live_row = await anext(live_columns, None)
            elif live_row is None or replayed_row["k"] < live_row["k"]:
                yield Difference(replayed_row["key"], "missing")
                replayed_row = await anext(replayed_columns, None)
            else:
                other = [name for name, a, b in zip(columns, live_row["d"], replayed_row["d"], strict=True) if a != b]
                if other:
                    yield Difference(live_row["key"], "differs", tuple(other))
                live_row, replayed_row = await anext(live_columns, None), await anext(replayed_columns, None)


async def _stream(table: str, side: _Side, key: list[str], columns: list[str]) -> AsyncGenerator[DictRow]:
    """Of each row: its key as sortable text (`k`) and as JSON (`key`), and a digest of each column (`d`)."""
    pairs = sql.SQL(", ").join(sql.SQL("{}, {}").format(sql.Literal(name), sql.Identifier(name)) for name in key)
    digests = sql.SQL(", ").join(sql.SQL("md5({}::text)").format(sql.Identifier(name)) for name in columns)
    statement = sql.SQL(
        """SELECT (ROW({key})::text) COLLATE "C" AS k, json_build_object({pairs}) AS key, ARRAY[{digests}] AS d
           FROM {table} ORDER BY 1"""
    ).format(key=_names(key), pairs=pairs, digests=digests, table=sql.Identifier(side.schema, table))
    async with side.conn.cursor(name=f"rows_{side.schema}") as cursor:
        cursor.itersize = PAGE
        await cursor.execute(statement)
        async for row in cursor:
            yield row


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in columns)
