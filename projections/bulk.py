"""Writes many rows at once: COPY, in the text format of Postgres.

psycopg looks up a function for each value of each row. Here a table of six types does, which is faster.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from projections.database import Connection
from runtime.text.iso import iso

#: For at least so many rows, COPY is faster than INSERT. It cannot be part of a pipeline.
COPIED = 16
#: Rows that are encoded at a time.
CHUNK = 512

Values = Sequence[object]
"""A row, in the order of its columns. Each value is None, bool, int, str, bytes, datetime, or a list of str."""

_SPECIAL = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def _text(value: str) -> str:
    if "\\" in value or "\n" in value or "\t" in value or "\r" in value:
        return value.translate(_SPECIAL)
    return value


def _array(value: Sequence[str]) -> str:
    quoted = [each.replace("\\", "\\\\").replace('"', '\\"') for each in value]
    return _text('{"' + '","'.join(quoted) + '"}') if quoted else "{}"


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


async def delete(conn: Connection, table: str, key: Sequence[str], keys: Iterable[Sequence[str]]) -> None:
    """Delete the rows with these keys. `key`: the names of the columns of the key, which are texts."""
    columns = [list(column) for column in zip(*keys, strict=True)]
    if columns:
        arrays = ", ".join("%s::text[]" for _ in key)
        names = ", ".join(key)
        await conn.execute(
            f"""DELETE FROM {table} t USING unnest({arrays}) AS removed ({names})
                WHERE ({", ".join(f"t.{name}" for name in key)}) = ({", ".join(f"removed.{name}" for name in key)})
            """.encode(),  # noqa: S608  (names of tables and columns are constants)
            columns,
        )
