"""`verify` compares the read models with a replay of the log; `rebuild` builds them again without an interruption.

Both replay the log into a second copy beside the live one. `verify` compares every column of every table of the two
copies at one position, and names the rows that differ. `rebuild` replaces the live copy by the second one; the runner
continues from there.
"""

from dataclasses import dataclass, replace

from nats.aio.client import Client

from eventstore.log.macs import EventKeys
from eventstore.log.store import EventStore
from projections import compare, copies, database, reached, upgrade
from projections.compare import Difference, Excuse, TableDifference
from projections.database import Connection
from projections.model import Secrets, Session, Standing
from projections.position import Position
from projections.runner import Runner
from projections.shelf import NOW, Shelf


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
    nc: Client, dsn: str, secrets: Secrets, event_keys: EventKeys | None = None, *, shelf: Shelf = NOW
) -> Comparison:
    """Compare the live read models with a replay of the log up to their position. The live copy can be used meanwhile.

    Read models of another version are not compared: then `schema_version` differs. Raises Busy and Replaced.
    """
    async with (
        await database.connect(dsn, "verify", shelf.schema) as live,
        await database.connect(dsn, "verify", shelf.checked) as replayed,
        compare.snapshot(live),
    ):
        if not await database.free(replayed, shelf.checked):
            raise Busy("another process verifies the read models; try again once it has ended")
        identity = await _identity(live, shelf)
        position = min(await live_position(live, shelf), await EventStore(nc).last_position())
        try:
            await copies.make(replayed, shelf.models, shelf.checked, indexed=False)
            same = await upgrade.where(live, shelf.models, shelf.schema) is Standing.SAME
            if same:
                runner = Runner(nc, dsn, secrets, Position(), shelf.models, event_keys, parks=False)
                await runner.follow(replayed, position)
            tables = None if same else ("schema_version",)
            excuse = excused(Session(replayed, secrets), shelf)
            found = await compare.differing(live, shelf.schema, replayed, shelf.checked, tables, excuse)
            rows = await counted(live, shelf) if same else 0
        finally:
            await copies.drop(replayed, shelf.checked)
        if await _identity(live, shelf) != identity:
            raise Replaced("the read models were replaced during the comparison; verify them again")
    order = {table: number for number, table in enumerate(shelf.tables)}
    found.sort(key=lambda each: order.get(each.table, len(order)))
    return Comparison(position, rows, tuple(replace(each, table=shelf.label(each.table)) for each in found))


async def is_made(dsn: str, shelf: Shelf) -> bool:
    """Whether a database has these read models, of any version."""
    async with await database.connect(dsn, "verify", shelf.schema) as conn:
        return await copies.stored_versions(conn, shelf.schema) is not None


async def rebuild(
    nc: Client, dsn: str, secrets: Secrets, event_keys: EventKeys | None = None, *, shelf: Shelf = NOW
) -> int:
    """Replace the live read models by a replay of the whole log; the position that the new ones reflect."""
    runner = Runner(nc, dsn, secrets, Position(), event_keys=event_keys, parks=shelf == NOW)
    async with await database.connect(dsn, "rebuild", shelf.schema) as conn:
        await upgrade.replace(conn, dsn, shelf, runner.replay, end=EventStore(nc).last_position)
        return await database.checkpoint(conn)


async def live_position(conn: Connection, shelf: Shelf) -> int:
    """The position of the live rows: their checkpoint or, if that is missing, their last event."""
    stored = await database.checkpoint(conn)
    return stored if stored >= 0 else await reached.newest(conn, shelf.models)


async def counted(conn: Connection, shelf: Shelf) -> int:
    """The number of rows of all read models."""
    total = 0
    for table in shelf.tables:
        row = await (await conn.execute(f"SELECT count(*) AS n FROM {table}".encode())).fetchone()  # noqa: S608
        assert row is not None
        total += int(row["n"])
    return total


async def _identity(conn: Connection, shelf: Shelf) -> object:
    """A value that changes when the live schema is replaced."""
    row = await (await conn.execute("SELECT to_regclass(%s)::oid AS id", [f"{shelf.schema}.checkpoint"])).fetchone()
    return row and row["id"]


def excused(session: Session, shelf: Shelf) -> Excuse:
    """Checks each difference with the `excuse` of the table's read model. `session` is that of the replay."""
    excuses = {table: model.excuse for model in shelf.models for table in model.tables if model.excuse is not None}

    async def judge(table: str, difference: Difference) -> bool:
        excuse = excuses.get(table)
        return excuse is not None and await excuse(session, table, difference)

    return judge
