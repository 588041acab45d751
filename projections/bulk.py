"""Writes many rows in few statements: COPY for many new rows, else one statement for all rows of a table.

Rows are found by their key, always by its index: rows that exist are updated in their place (`INSERT … ON CONFLICT`),
and are neither deleted nor written anew. So a table does not grow with the number of events, and what a statement costs
does not depend on the statistics that Postgres has of the table.

psycopg looks up a function for each value of each row. Here a table of six types does, which is faster.
"""

import contextlib
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from projections.database import Connection
from runtime.text.iso import iso

#: For at least so many new rows, COPY is faster than INSERT. It cannot be part of a pipeline.
COPIED = 256
#: Rows that are encoded at a time.
CHUNK = 512

Values = Sequence[object]
"""A row, in the order of its columns. Each value is None, bool, int, str, bytes, datetime, or a list of str."""

_SPECIAL = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def _text(value: str) -> str:
    if "\\" in value or "\n" in value or "\t" in value or "\r" in value:
        return value.translate(_SPECIAL)
    return value


def _quoted(value: Sequence[str]) -> str:
    quoted = [each.replace("\\", "\\\\").replace('"', '\\"') for each in value]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def _array(value: Sequence[str]) -> str:
    return _text(_quoted(value))


_ENCODE: Mapping[type, Callable[[Any], str]] = {
    type(None): lambda _: "\\N",
    bool: lambda value: "t" if value else "f",
    int: int.__repr__,
    str: _text,
    bytes: lambda value: "\\\\x" + value.hex(),
    datetime: iso,
    list: _array,
}


def encoded(rows: Iterable[Values]) -> bytes:
    """Rows in the text format of COPY. Raises UnicodeEncodeError for text that is not valid Unicode."""
    encode = _ENCODE
    return "".join(["\t".join([encode[value.__class__](value) for value in values]) + "\n" for values in rows]).encode()


@contextlib.asynccontextmanager
async def copying(
    conn: Connection, table: str, names: Sequence[str]
) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """A function that adds rows, which `encoded` has made. Postgres works on them while this process goes on."""
    async with conn.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN".encode()) as copy:
        yield copy.write


async def insert(conn: Connection, table: str, names: Sequence[str], rows: Sequence[Values]) -> None:
    """Add rows that the table does not have, by COPY. `names`: the columns of the values, in their order."""
    async with copying(conn, table, names) as write:
        for start in range(0, len(rows), CHUNK):
            await write(encoded(rows[start : start + CHUNK]))


class TextArray(bytes):
    """An array of texts, in the binary format of Postgres."""

    __slots__ = ()

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> "TextArray":
        """Raises UnicodeEncodeError for text that is not valid Unicode."""
        parts = [_ARRAY(1, 0, _TEXT, len(texts), 1) if texts else _ARRAY(0, 0, _TEXT, 0, 0)[:12]]
        for text in texts:
            if text is None:
                parts.append(_NULL)
            else:
                value = text.encode()
                parts += (_LENGTH(len(value)), value)
        return cls(b"".join(parts))


#: The header of an array: dimensions, flags, type of its elements, their number, index of the first. An element has its
#: length in front; NULL has the length -1.
_ARRAY, _LENGTH, _NULL, _TEXT = struct.Struct(">iiiii").pack, struct.Struct(">i").pack, b"\xff\xff\xff\xff", 25


class _Dumper(Dumper):
    format, oid = Format.BINARY, 1009

    def dump(self, obj: TextArray) -> bytes:
        return bytes(obj)


psycopg.adapters.register_dumper(TextArray, _Dumper)

#: As in COPY, but not for COPY: without its escapes, and None is NULL.
_PLAIN: Mapping[type, Callable[[Any], str | None]] = {
    **_ENCODE,
    type(None): lambda _: None,
    str: lambda value: value,
    bytes: lambda value: "\\x" + value.hex(),
    list: _quoted,
}


def texts(rows: Sequence[Values]) -> list[TextArray]:
    """The columns of these rows, each as an array of texts."""
    plain = _PLAIN
    return [TextArray.of([plain[value.__class__](value) for value in column]) for column in zip(*rows, strict=True)]


@dataclass(frozen=True)
class Table:
    """A table whose rows are written: the columns of a row in their order, with their types, and the key."""

    name: str
    types: Mapping[str, str]
    key: tuple[str, ...]

    @classmethod
    def of(cls, ddl: str, name: str, key: tuple[str, ...], names: Sequence[str] = ()) -> "Table":
        """The table that a DDL creates. `names`: the columns in the order of the values, if that is another one."""
        found = re.search(rf"CREATE TABLE {name} \((.*?)\n?\s*\)( WITH|;)", ddl, re.DOTALL)
        if found is None:
            raise TypeError(f"the DDL does not create the table {name}")
        types = dict(_COLUMN.findall(found[1]))
        return cls(name, {each: types[each] for each in names or types}, key)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.types)

    @cached_property
    def addition(self) -> bytes:
        """The statement that adds rows. Parameters: a TextArray for each column."""
        return f"""
            INSERT INTO {self.name} ({", ".join(self.types)})
            SELECT {", ".join(name if of == "text" else f"{name}::{of}" for name, of in self.types.items())}
            FROM unnest({", ".join("%s" for _ in self.types)}) AS given ({", ".join(self.types)})
        """.encode()  # noqa: S608  (names of tables and columns are constants)

    @cached_property
    def upsert(self) -> bytes:
        """The same, but rows with the same key are replaced."""
        others = [name for name in self.types if name not in self.key]
        do = f"UPDATE SET {', '.join(f'{name} = EXCLUDED.{name}' for name in others)}" if others else "NOTHING"
        return self.addition + f"ON CONFLICT ({', '.join(self.key)}) DO {do}".encode()

    def removal(self, key: Sequence[str]) -> bytes:
        """The statement that deletes rows. `key`: names of columns, which are texts and begin an index."""
        rows = lookup(self.name, key, "ctid")
        return f"DELETE FROM {self.name} WHERE ctid = ANY (ARRAY({rows}))".encode()  # noqa: S608  (constants)


def lookup(table: str, key: Sequence[str], columns: str, where: str = "true") -> str:
    """The query for the rows with the given keys, an array for each column of the key, that match `where`.

    Each key is looked up by the index that begins with its columns: Postgres cannot choose to read the table first.
    """
    return f"""
        SELECT found.* FROM unnest({", ".join("%s::text[]" for _ in key)}) AS requested ({", ".join(key)})
        CROSS JOIN LATERAL (
            SELECT {columns} FROM {table} t
            WHERE {" AND ".join(f"t.{name} = requested.{name}" for name in key)} AND {where} OFFSET 0
        ) found
    """  # noqa: S608  (names of tables and columns are constants)


_COLUMN = re.compile(r"(?:^|,)\s*([a-z_]+)\s+([a-z]+(?:\[\])?)(?=[\s,]|$)")


async def put(conn: Connection, table: Table, rows: Sequence[Values]) -> None:
    """Add rows, or replace those with the same key. Two of the rows must not have one key."""
    if rows:
        await conn.execute(table.upsert, texts(rows))


async def add(conn: Connection, table: Table, rows: Sequence[Values]) -> None:
    """Add rows that the table does not have."""
    if rows:
        await conn.execute(table.addition, texts(rows))


async def write(conn: Connection, table: Table, new: Sequence[Values], old: Sequence[Values], *, many: bool) -> None:
    """Add `new` rows, and replace `old` ones. `many`: the connection is not in a pipeline, so COPY is possible."""
    if many and len(new) >= COPIED:
        await insert(conn, table.name, table.names, new)
        await put(conn, table, old)
    else:
        await put(conn, table, [*old, *new])


async def extend(conn: Connection, table: Table, rows: Sequence[Values], *, many: bool) -> None:
    """Add rows that the table does not have. `many`: as for `write`."""
    if many and len(rows) >= COPIED:
        await insert(conn, table.name, table.names, rows)
    else:
        await add(conn, table, rows)


async def delete(conn: Connection, table: Table, keys: Sequence[Sequence[str]], key: Sequence[str] = ()) -> None:
    """Delete the rows with these keys. `key`: the names of the columns, if it is not that of the table."""
    if keys:
        await conn.execute(table.removal(key or table.key), texts(keys))


@contextlib.asynccontextmanager
async def by_key(conn: Connection) -> AsyncIterator[None]:
    """Inside, each statement of this session finds rows by an index, even if Postgres believes that a table is small.

    A statement is planned once for the session, and then used for tables that grow a thousandfold.
    """
    names = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
    for name in names:
        await conn.execute(f"SET {name} = off".encode())
    await conn.execute("SET plan_cache_mode = force_generic_plan")
    try:
        yield
    finally:
        with contextlib.suppress(psycopg.Error):  # the connection may be broken
            for name in (*names, "plan_cache_mode"):
                await conn.execute(f"RESET {name}".encode())
