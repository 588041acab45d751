"""Tables that a replay fills lack indexes, and Postgres leaves them alone. The next start finishes what is missing."""

from collections.abc import AsyncIterator

import pytest

from projections import copies, database
from projections.books import MODELS
from projections.database import Connection
from runtime.local.servers import Postgres
from tests.conftest import fresh_database

TABLES = {table for model in MODELS for table in model.tables}
INDEXES = {name for model in MODELS for name in model.indexes}


@pytest.fixture
async def conn(postgres: Postgres) -> AsyncIterator[Connection]:
    async with await database.connect(await fresh_database(postgres), "test") as conn:
        await copies.make(conn, MODELS, "nebula", indexed=False)
        yield conn


async def names(conn: Connection, query: str) -> set[str]:
    return {row["name"] for row in await (await conn.execute(query.encode())).fetchall()}


async def unvacuumed(conn: Connection) -> set[str]:
    return await names(
        conn,
        """SELECT relname AS name FROM pg_class
           WHERE relnamespace = 'nebula'::regnamespace AND 'autovacuum_enabled=false' = ANY (reloptions)""",
    )


async def indexed(conn: Connection) -> set[str]:
    return await names(conn, "SELECT indexname AS name FROM pg_indexes WHERE schemaname = 'nebula'")


async def options(conn: Connection) -> dict[str, str]:
    found = await conn.execute(
        """SELECT c.relname AS name, concat(c.reloptions::text, t.reloptions::text) AS options
           FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
           WHERE c.relnamespace = 'nebula'::regnamespace AND c.relkind = 'r'"""
    )
    return {row["name"]: row["options"] for row in await found.fetchall()}


async def test_a_replay_is_not_vacuumed_until_the_indexes_are_there(conn: Connection) -> None:
    assert await unvacuumed(conn) == TABLES
    assert not INDEXES - {name for model in MODELS for name in model.early} <= await indexed(conn)
    await copies.index(conn, MODELS)
    assert await unvacuumed(conn) == set()
    assert await indexed(conn) >= INDEXES


@pytest.mark.parametrize("done", [1, 5, len(INDEXES)])
async def test_what_a_crash_left_undone_is_done(conn: Connection, done: int) -> None:
    for statement in [each for model in MODELS for name, each in model.indexes.items() if name not in model.early][
        :done
    ]:
        await conn.execute(statement.encode())
    for table in sorted(TABLES)[: done - 1]:
        await conn.execute(f"ALTER TABLE {table} RESET (autovacuum_enabled, toast.autovacuum_enabled)".encode())
    await copies.index(conn, MODELS)
    assert await unvacuumed(conn) == set()
    assert await indexed(conn) >= INDEXES


async def test_other_options_of_a_table_stay(conn: Connection) -> None:
    await copies.index(conn, MODELS)
    after = await options(conn)
    await copies.make(conn, MODELS, "nebula")
    assert after == await options(conn)
    assert "fillfactor" in after["vms"]
