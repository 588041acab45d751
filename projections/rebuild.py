"""`verify` compares the read models with a replay of the log; `rebuild` builds them again without an interruption.

Both replay the log into a second copy beside the live one. `verify` compares every column of every table of the two
copies at one position, and names the rows that differ. `rebuild` replaces the live copy by the second one; the runner
continues from there.
"""

from dataclasses import dataclass

from nats.aio.client import Client

from eventstore.log.macs import EventKeys
from eventstore.log.store import EventStore
from projections import compare, copies, database, reached, upgrade
from projections.books import MODELS
from projections.compare import Difference, Excuse, TableDifference
from projections.database import SCHEMA, Connection
from projections.model import Secrets, Session, Standing
from projections.position import Position
from projections.runner import Runner

#: All tables, in the order of the report.
TABLES = (*(table for model in MODELS for table in model.tables), "checkpoint", "schema_version")


class Busy(Exception):
    """Another process verifies the read models at this moment."""


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


async def verify(
    nc: Client, dsn: str, secrets: Secrets, event_keys: EventKeys | None = None, *, schema: str = "nebula_verify"
) -> Comparison:
    """Compare the live read models with a replay of the log up to their position. The live copy can be used meanwhile.

    Read models of another version are not compared: then `schema_version` differs. Raises Busy and Replaced.
    """
    async with (
        await database.connect(dsn, "verify") as live,
        await database.connect(dsn, "verify", schema) as replayed,
        compare.snapshot(live),
    ):
        if not await database.free(replayed, schema):
            raise Busy("another process verifies the read models; try again once it has ended")
        identity = await _identity(live)
        position = min(await live_position(live), await EventStore(nc).last_position())
        try:
            await copies.make(replayed, MODELS, schema, indexed=False)
            same = await upgrade.where(live, MODELS, SCHEMA) is Standing.SAME
            if same:
                runner = Runner(nc, dsn, secrets, Position(), MODELS, event_keys, parks=False)
                await runner.follow(replayed, position)
            tables = None if same else ("schema_version",)
            found = await compare.differing(live, SCHEMA, replayed, schema, tables, excused(Session(replayed, secrets)))
            rows = await counted(live) if same else 0
        finally:
            await copies.drop(replayed, schema)
        if await _identity(live) != identity:
            raise Replaced("the read models were replaced during the comparison; verify them again")
    order = {table: number for number, table in enumerate(TABLES)}
    return Comparison(position, rows, tuple(sorted(found, key=lambda each: order.get(each.table, len(order)))))


async def rebuild(nc: Client, dsn: str, secrets: Secrets, event_keys: EventKeys | None = None) -> int:
    """Replace the live read models by a replay of the whole log; the position that the new ones reflect."""
    runner = Runner(nc, dsn, secrets, Position(), event_keys=event_keys)
    async with await database.connect(dsn, "rebuild") as conn:
        await upgrade.replace(conn, dsn, MODELS, runner.replay, end=EventStore(nc).last_position)
        return await database.checkpoint(conn)


async def live_position(conn: Connection) -> int:
    """The position of the live rows: their checkpoint or, if that is missing, their last event."""
    stored = await database.checkpoint(conn)
    return stored if stored >= 0 else await reached.newest(conn, MODELS)


async def counted(conn: Connection) -> int:
    """The number of rows of all read models."""
    total = 0
    for table in TABLES:
        row = await (await conn.execute(f"SELECT count(*) AS n FROM {table}".encode())).fetchone()  # noqa: S608
        assert row is not None
        total += int(row["n"])
    return total


async def _identity(conn: Connection) -> object:
    """A value that changes when the live schema is replaced."""
    row = await (await conn.execute("SELECT to_regclass(%s)::oid AS id", [f"{SCHEMA}.checkpoint"])).fetchone()
    return row and row["id"]


def excused(session: Session) -> Excuse:
    """Checks each difference with the `excuse` of the table's read model. `session` is that of the replay."""
    excuses = {table: model.excuse for model in MODELS for table in model.tables if model.excuse is not None}

    async def judge(table: str, difference: Difference) -> bool:
        excuse = excuses.get(table)
        return excuse is not None and await excuse(session, table, difference)

    return judge
