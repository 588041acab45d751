"""Prove that the read models are what the log says, and make them anew without an interruption.

Both replay the log into a second copy beside the live one. `verify` compares the copies at one position, every column
of every table, and names the rows that differ. `rebuild` puts the second copy in the live one's place; the runner
goes on from there.
"""

from dataclasses import dataclass

from nats.aio.client import Client

from eventstore.log.store import EventStore
from projections import compare, copies, database, reached, upgrade
from projections.books import MODELS
from projections.compare import Difference, Excuse, TableDifference
from projections.database import SCHEMA, Connection
from projections.model import Secrets, Session, Standing
from projections.position import Position
from projections.runner import Runner

#: Every table, in the order in which they are reported.
TABLES = (*(table for model in MODELS for table in model.tables), "checkpoint", "schema_version")


class Busy(Exception):
    """Another process proves the read models at this moment."""


class Replaced(Exception):
    """The live read models were replaced while they were compared."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between the live rows and a replay, at one position of the log."""

    position: int
    rows: int
    tables: tuple[TableDifference, ...]

    @property
    def differing(self) -> tuple[str, ...]:
        return tuple(each.table for each in self.tables)


async def verify(nc: Client, dsn: str, secrets: Secrets, *, schema: str = "nebula_verify") -> Comparison:
    """Compare the live read models with a replay of the log up to where they stand. Live work goes on meanwhile.

    Read models of another version are not compared: then `schema_version` differs. Raises Busy and Replaced.
    """
    async with (
        await database.connect(dsn, "verify") as live,
        await database.connect(dsn, "verify", schema) as made,
        compare.snapshot(live),
    ):
        if not await database.free(made, schema):
            raise Busy("another process verifies the read models; try again once it has ended")
        identity = await _identity(live)
        position = min(await stands(live), await EventStore(nc).last_position())
        try:
            await copies.make(made, MODELS, schema)
            same = await upgrade.where(live, MODELS, SCHEMA) is Standing.SAME
            if same:
                await Runner(nc, dsn, secrets, Position(), MODELS).follow(made, position)
            tables = None if same else ("schema_version",)
            found = await compare.differing(live, SCHEMA, made, schema, tables, excused(Session(made, secrets)))
            rows = await counted(live) if same else 0
        finally:
            await copies.drop(made, schema)
        if await _identity(live) != identity:
            raise Replaced("the read models were replaced meanwhile; verify them again")
    order = {table: number for number, table in enumerate(TABLES)}
    return Comparison(position, rows, tuple(sorted(found, key=lambda each: order.get(each.table, len(order)))))


async def rebuild(nc: Client, dsn: str, secrets: Secrets) -> int:
    """Replace the live read models by a replay of the whole log; the position that the new ones reflect."""
    runner = Runner(nc, dsn, secrets, Position())
    async with await database.connect(dsn, "rebuild") as conn:
        await upgrade.replace(conn, dsn, MODELS, runner.replay, end=EventStore(nc).last_position)
        return await database.checkpoint(conn)


async def stands(conn: Connection) -> int:
    """Where the live rows stand: by their checkpoint, or by the last event where that is missing."""
    said = await database.checkpoint(conn)
    return said if said >= 0 else await reached.newest(conn, MODELS)


async def counted(conn: Connection) -> int:
    """The rows of all read models."""
    total = 0
    for table in TABLES:
        row = await (await conn.execute(f"SELECT count(*) AS n FROM {table}".encode())).fetchone()  # noqa: S608
        assert row is not None
        total += int(row["n"])
    return total


async def _identity(conn: Connection) -> object:
    """Another one once the live schema is another one."""
    row = await (await conn.execute("SELECT to_regclass(%s)::oid AS id", [f"{SCHEMA}.checkpoint"])).fetchone()
    return row and row["id"]


def excused(session: Session) -> Excuse:
    """Judges differences by the read model that the table is of; `session` is that of what was just made."""
    excuses = {table: model.excuse for model in MODELS for table in model.tables if model.excuse is not None}

    async def judge(table: str, difference: Difference) -> bool:
        excuse = excuses.get(table)
        return excuse is not None and await excuse(session, table, difference)

    return judge
