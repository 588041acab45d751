"""Postgres for the read models: connections, locks, the checkpoint, and reads that return their log position.

Queries name tables without a schema. The `search_path` of a connection chooses the copy of the read models, so a replay
can fill a second copy beside the live one.
"""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from psycopg import AsyncConnection, DatabaseError, Error, InterfaceError, OperationalError, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from projections import refusals
from runtime.tasks.patience import CannotRun, one_line, patiently

SCHEMA = "nebula"
#: The advisory lock for creating a schema; WRITER is the first half of the lock that the only writer of a copy holds.
LOCK = 0x6E6562756C61
WRITER = LOCK >> 24
#: Seconds between two tries to become the writer of a copy.
STANDBY_SECONDS = 0.5

#: How many characters of a text a column holds.
LONGEST = 512

#: The server ends a session whose host is gone after eleven seconds: it may hold the lock of the writer.
SESSION = {
    "timezone": "UTC",
    "jit": "off",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

S = TypeVar("S")

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]
Params = Mapping[str, Any]
Mine = list[str] | None
"""The projects of which a query may find rows; None stands for all, and for rows of no project. Every query that
answers callers has it, without a default."""

Begins = Mapping[str, int]
"""The projects that were deleted and created again, with the position of that: what was before belonged to others."""
NEVER: Begins = MappingProxyType({})

#: An escaped backslash, or an escaped NUL (whose backslash is not itself escaped).
_ESCAPES = re.compile(r"\\\\|\\u0000")


class ReadModelsUnavailable(Exception):
    """Postgres cannot be queried now, or has no read models yet."""


class OtherColumns(ReadModelsUnavailable):
    """The read models are of another version, which lacks a column of the query."""


class NotGranted(ReadModelsUnavailable):
    """The role may not read this table: the owner of the read models has to grant it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows of one query, and the log position that they reflect."""

    position: int
    rows: list[DictRow]

    @property
    def row(self) -> DictRow | None:
        return self.rows[0] if self.rows else None


def conninfo(dsn: str, schema: str, role: str) -> str:
    """The DSN for one copy of the read models, with short timeouts and a name that pg_stat_activity shows.

    Postgres compiles a query (`jit`) that it expects to be expensive. That takes 20 ms and more, and the estimate is
    often wrong, for example while a table has no statistics. No query of ours runs long enough for it.
    """
    return make_conninfo(
        dsn,
        options=" ".join(f"-c {name}={value}" for name, value in {"search_path": schema, **SESSION}.items()),
        application_name=f"nebula-{role}",
        connect_timeout=3,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=10_000,
    )


async def connect(dsn: str, role: str, schema: str = SCHEMA) -> Connection:
    """One connection in autocommit mode. Raises OperationalError, or CannotRun if the server refuses this role."""
    where = conninfo(dsn, schema, role)
    try:
        return await AsyncConnection.connect(where, autocommit=True, row_factory=dict_row, prepare_threshold=2)
    except OperationalError as error:
        if refusals.is_refusal(await asyncio.to_thread(refusals.code_of, where)):
            raise refused(dsn, error) from error
        raise


async def connected(dsn: str, role: str, schema: str = SCHEMA) -> Connection:
    """The same, but waits until Postgres can be reached."""
    return await patiently(place(dsn), lambda: connect(dsn, role, schema), (OperationalError,))


def place(dsn: str) -> str:
    """The place of a database, as text without the password."""
    found = conninfo_to_dict(dsn)
    host, port = found.get("host") or found.get("hostaddr") or "this host", found.get("port")
    return f"Postgres at {host}:{port}" if port else f"Postgres at {host}"


def refused(dsn: str, error: Exception) -> CannotRun:
    """The error for a missing right, which waiting does not solve."""
    return CannotRun(
        f"{place(dsn)} refuses the connection: {one_line(error)} "
        "(check NEBULA_POSTGRES_DSN; postgres.sql makes the roles)"
    )


def pool(dsn: str, role: str, schema: str = SCHEMA, *, size: int = 8) -> Pool:
    """A pool of connections for reads. It is closed at first: open it with `await pool.open()`."""
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # callers get ReadModelsUnavailable
    return AsyncConnectionPool(
        conninfo(dsn, schema, role),
        connection_class=AsyncConnection[DictRow],
        kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": 2},
        min_size=1,
        max_size=size,
        timeout=2.0,
        max_waiting=1000,
        reconnect_timeout=5.0,
        open=False,
        name=role,
    )


async def free(conn: Connection, schema: str) -> bool:
    """Try to become the only writer of this copy, until the session ends. False if another session is."""
    cursor = await conn.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s)) AS free", [WRITER, schema])
    row = await cursor.fetchone()
    return row is not None and bool(row["free"])


async def release(conn: Connection, schema: str) -> None:
    """Let another session become the writer of this copy."""
    await conn.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", [WRITER, schema])


async def alone(conn: Connection, schema: str) -> None:
    """Wait until this session is the only writer of this copy of the read models. It stays so until it ends."""
    while True:
        if await free(conn, schema):
            return
        await asyncio.sleep(STANDBY_SECONDS)


async def select(conn: Connection, query: str, params: Sequence[Any]) -> list[DictRow]:
    """The rows of a query. Calls that wait at the same time, in one pipeline, share a round trip to the server."""
    cursor = await conn.execute(query.encode(), params)
    await asyncio.sleep(0)  # the others put their queries into the pipeline before the first one waits for its rows
    return await cursor.fetchall()


async def checkpoint(conn: Connection) -> int:
    """The position up to which the read models reflect the log; -1 if somebody removed it."""
    row = await (await conn.execute("SELECT position FROM checkpoint")).fetchone()
    return int(row["position"]) if row is not None else -1


def lost(error: Exception) -> bool:
    """Whether the server is down, or the connection broke, so that the statement is not the cause.

    libpq has no code for an answer that breaks off; psycopg raises a plain DatabaseError for it.
    """
    return isinstance(error, OperationalError | InterfaceError | OSError) or type(error) is DatabaseError


async def fetch(pool: Pool, query: str, params: Params, *, order: str = "1", planned: bool | None = None) -> Snapshot:
    """The rows of a query and the checkpoint that they reflect, from one statement and so from one snapshot.

    `order` names the columns of `query` to sort by. `planned`: False for a query whose best plan depends on its
    parameters; else Postgres may keep one plan for all. Raises ReadModelsUnavailable.
    """
    statement = f"""
        SELECT c.position AS log_position, r.*
        FROM checkpoint c LEFT JOIN LATERAL (SELECT true AS is_row, q.* FROM ({query}) q) r ON true
        ORDER BY {order}
    """  # noqa: S608  (both are constants of this package)
    try:
        try:
            rows = await _rows(pool, statement, params, prepare=planned)
        except PoolTimeout:
            raise
        except errors.FeatureNotSupported:  # the statement was prepared for the tables of an older version
            rows = await _rows(pool, statement, params, prepare=False)
        except (Error, OSError) as error:
            if not lost(error):
                raise
            await pool.check()  # the server was down: replace broken connections, and try once more
            rows = await _rows(pool, statement, params, prepare=planned)
    except errors.InsufficientPrivilege as error:
        raise NotGranted(str(error)) from error
    except errors.UndefinedColumn as error:
        raise OtherColumns(str(error)) from error
    except (Error, OSError) as error:
        missing = (errors.UndefinedTable, errors.InvalidSchemaName)
        if not (lost(error) or isinstance(error, missing)):
            raise
        raise ReadModelsUnavailable(str(error)) from error
    if not rows:
        raise ReadModelsUnavailable("the read models are being built")
    return Snapshot(rows[0]["log_position"], [row for row in rows if row["is_row"]])


def since(begins: Begins, owner: str, position: str) -> str:
    """The condition for what does not belong to an earlier project of the same id. `owner`, `position`: its columns.

    The query needs the parameters of `of_begins`.
    """
    return f"{position} >= coalesce((%(begins)s::jsonb ->> {owner})::bigint, 0)" if begins else "true"


def of_begins(begins: Begins) -> Params:
    return {"begins": to_json(dict(begins)).decode()}


async def answers(pool: Pool) -> None:
    """Return where the read models can be asked. Raises ReadModelsUnavailable."""
    await fetch(pool, "SELECT true AS there", {})


async def progress(pool: Pool, schema: str = SCHEMA) -> tuple[int, bool]:
    """How far the read models are, and whether a process keeps them: its lock says so. Raises ReadModelsUnavailable."""
    query = """SELECT EXISTS (SELECT 1 FROM pg_locks
               WHERE locktype = 'advisory' AND classid = %(writer)s
               AND objid = (hashtext(%(schema)s)::bigint & 4294967295) AND granted
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS kept"""
    found = await fetch(pool, query, {"writer": WRITER, "schema": schema})
    return found.position, found.row is not None and bool(found.row["kept"])


async def _rows(pool: Pool, statement: str, params: Params, *, prepare: bool | None = None) -> list[DictRow]:
    async with pool.connection() as conn:
        return await (await conn.execute(statement.encode(), params, prepare=prepare)).fetchall()


def parsed(type_: TypeAdapter[S], text: str) -> S:
    """A state from the JSON of a row.

    Raises ReadModelsUnavailable if another version wrote it and this one cannot read it.
    """
    try:
        return type_.validate_json(text)
    except ValidationError as error:
        wrong = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
        raise ReadModelsUnavailable(
            f"the read models are of another version: this one cannot read their {wrong}"
        ) from error


def clean(text: str) -> str:
    """Text that Postgres can store: without NUL characters."""
    if "\x00" not in text:
        return text
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def key(text: str) -> str:
    """Text that an index can hold: Postgres refuses entries of more than 2,700 bytes."""
    if len(text) <= LONGEST and "\x00" not in text:
        return text
    return clean(text[:LONGEST])


def clean_json(text: str) -> str:
    """JSON that Postgres can store: without escaped NUL characters."""
    if "\\u0000" not in text:
        return text
    return _ESCAPES.sub(lambda found: "\\ufffd" if found[0] == "\\u0000" else found[0], text)
