"""Prove that the read models are what the log says, and make them anew without an interruption.

Both replay the log into a second copy beside the live one. `verify` compares the copies at one position, by digest.
`rebuild` puts the second copy in the live one's place; the runner notices and goes on from there.
"""

from dataclasses import dataclass

from nats.aio.client import Client
from psycopg import sql

from eventstore.store import EventStore
from projections import database
from projections.books import TABLES
from projections.database import LOCK, SCHEMA, Connection
from projections.position import Position
from projections.runner import Runner
from projections.seeds import Secrets

#: What is compared. Seeds are not: keys that are destroyed while a replay runs cannot be derived from again.
COMPARED = (*(table.table for table in TABLES.values()), "operations", "events")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The tables that differ between the live rows and a replay, at one position of the log."""

    position: int
    rows: int
    differing: tuple[str, ...]


async def verify(nc: Client, dsn: str, secrets: Secrets, *, schema: str = "nebula_verify") -> Comparison:
    """Compare the live read models with a replay of the log up to where they stand. Live work goes on meanwhile."""
    async with await database.connect(dsn, "verify") as conn, conn.transaction():
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        position = await database.checkpoint(conn)
        live = await digests(conn)
    await replay(nc, dsn, secrets, schema, position)
    async with await database.connect(dsn, "verify", schema) as conn:
        replayed = await digests(conn)
        await drop(conn, schema)
    differing = tuple(table for table in COMPARED if live[table] != replayed[table])
    return Comparison(position, sum(count for count, _ in live.values()), differing)


async def rebuild(nc: Client, dsn: str, secrets: Secrets, *, schema: str = "nebula_next") -> int:
    """Replace the live read models by a replay of the whole log; the position that the new ones reflect."""
    end = await EventStore(nc).last_position()
    await replay(nc, dsn, secrets, schema, end)
    async with await database.connect(dsn, "rebuild") as conn, conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        await drop(conn, SCHEMA)
        await conn.execute(
            sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(schema), sql.Identifier(SCHEMA))
        )
    return end


async def replay(nc: Client, dsn: str, secrets: Secrets, schema: str, until: int) -> None:
    """Fill a new copy of the read models with the log up to and including position `until`."""
    async with await database.connect(dsn, "replay", schema) as conn:
        await drop(conn, schema)
    await Runner(nc, dsn, secrets, Position(), schema).run(until)


async def drop(conn: Connection, schema: str) -> None:
    await conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


async def digests(conn: Connection) -> dict[str, tuple[int, str]]:
    """Of each table that is compared: the number of rows, and a digest of all of them."""
    found = {}
    for table in COMPARED:
        cursor = await conn.execute(
            f"""SELECT count(*) AS rows, coalesce(md5(string_agg(md5(t::text), '' ORDER BY t::text)), '') AS digest
                FROM {table} t""".encode()  # noqa: S608  (a constant)
        )
        row = await cursor.fetchone()
        assert row is not None
        found[table] = (int(row["rows"]), str(row["digest"]))
    return found
