"""Copies of the read models. Each copy is a Postgres schema with the tables of all read models and a checkpoint."""

from collections.abc import Iterable
from typing import Any, LiteralString

from psycopg import sql

from projections.database import LOCK, Connection
from projections.model import ReadModel, versions

#: The Postgres role that may read the served tables, if it exists (postgres.sql).
READER = "nebula_gateway"

_NO_VACUUM = "autovacuum_enabled = false, toast.autovacuum_enabled = false"

DDL = """
CREATE TABLE schema_version (model text PRIMARY KEY, version int NOT NULL);
CREATE TABLE checkpoint (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    position   bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO checkpoint (position) VALUES (0);
"""


async def make(conn: Connection, models: Iterable[ReadModel[Any, Any]], schema: str, *, indexed: bool = True) -> None:
    """Create empty read models in `schema`; an existing schema is dropped first. `indexed`: False for a copy that is
    filled by a long replay. `index` comes after it, which takes much less time. Meanwhile Postgres does not vacuum or
    analyze the tables: it would begin again and again while they grow, and take a fifth of the replay's time.
    """
    made = list(models)
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        await drop(conn, schema)
        await conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        await conn.execute(DDL.encode())
        for statement in (each for model in made for each in model.creations):
            await conn.execute(statement.encode())
        if indexed:
            await index(conn, made)
        else:
            await _all(conn, f"ALTER TABLE {{table}} SET ({_NO_VACUUM})", (name for one in made for name in one.tables))
        async with conn.cursor() as cursor:
            statement = "INSERT INTO schema_version (model, version) VALUES (%s, %s)"
            await cursor.executemany(statement, [(name, version) for name, version in versions(made).items()])
        await grant(conn, made, schema)


async def index(conn: Connection, models: Iterable[ReadModel[Any, Any]]) -> None:
    """Finish the tables after a long replay, in the copy of this connection: create the indexes that are missing, and
    let Postgres vacuum them. Reads go on meanwhile. It may be interrupted anywhere, and repeated.
    """
    cursor = await conn.execute("SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()")
    found = {row["indexname"] for row in await cursor.fetchall()}
    for name, statement in (each for model in models for each in model.indexes.items()):
        if name not in found:
            await conn.execute(statement.encode())
    cursor = await conn.execute(
        """SELECT relname AS name FROM pg_class
           WHERE relnamespace = current_schema()::regnamespace AND 'autovacuum_enabled=false' = ANY (reloptions)
           ORDER BY relname"""
    )
    unkept = [row["name"] for row in await cursor.fetchall()]
    await _all(conn, "ANALYZE {table}", unkept)
    await _all(conn, "ALTER TABLE {table} RESET (autovacuum_enabled, toast.autovacuum_enabled)", unkept)


async def _all(conn: Connection, statement: LiteralString, tables: Iterable[str]) -> None:
    """Execute a statement for each of these tables."""
    for table in tables:
        await conn.execute(sql.SQL(statement).format(table=sql.Identifier(table)))


async def grant(conn: Connection, models: Iterable[ReadModel[Any, Any]], schema: str) -> None:
    """Let the gateway read the served tables and the checkpoint in `schema`, and nothing else."""
    cursor = await conn.execute("SELECT 1 AS found FROM pg_roles WHERE rolname = %s", [READER])
    if await cursor.fetchone() is None:
        return
    served = ["checkpoint", *(table for model in models if model.served for table in model.tables)]
    names = {
        "schema": sql.Identifier(schema),
        "tables": sql.SQL(", ").join(sql.Identifier(schema, table) for table in served),
        "reader": sql.Identifier(READER),
    }
    async with conn.transaction():
        for statement in (
            "REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {reader}",
            "GRANT USAGE ON SCHEMA {schema} TO {reader}",
            "GRANT SELECT ON {tables} TO {reader}",
        ):
            await conn.execute(sql.SQL(statement).format(**names))


async def drop(conn: Connection, schema: str) -> None:
    await conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


async def stored_versions(conn: Connection, schema: str) -> dict[str, int] | None:
    """The versions of the read models in `schema`, by name; None if there are none.

    Earlier programs wrote one version for all of them: it is returned under an empty name.
    """
    cursor = await conn.execute("SELECT to_regclass(%s) AS found", [f"{schema}.schema_version"])
    row = await cursor.fetchone()
    if row is None or row["found"] is None:
        return None
    table = sql.Identifier(schema, "schema_version")
    cursor = await conn.execute(sql.SQL("SELECT to_jsonb(v) AS row FROM {} v").format(table))
    return {row["row"].get("model", ""): row["row"]["version"] for row in await cursor.fetchall()}
