"""Read models of a new version: built beside the live ones by a replay, compared with them, then switched.

    nebula_next   is filled from the log, while `nebula` answers every read (an older process, if one runs, updates it)
    nebula        becomes nebula_old, and nebula_next becomes nebula, in one transaction; then nebula_old is dropped

Every shelf (`shelf.py`) has such copies; these are the names of those of the present.

- Only read models whose version changed are built. The other tables move to the new copy with the switch; but tables of
  the aggregates are always built, because the other read models are folded from their states.

- One session writes to a copy at a time (`database.free`). Before the switch, the new process ends the session
  of the live copy's writer and takes its place. So nothing is written in between, not even by an older program.
- A crash before the switch does not change the live copy: the next process continues to fill nebula_next. After a crash
  after the switch, nebula_old still exists, and the next process drops it.
- The new copy is never behind the one that it replaces.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from psycopg import errors, sql

from projections import compare, copies, database, reached
from projections.books import Models
from projections.copies import drop
from projections.database import LOCK, STANDBY_SECONDS, WRITER, Connection, checkpoint, free
from projections.model import Standing, standing, versions
from projections.shelf import NOW, Shelf
from runtime import logs

log = logs.get(__name__)

#: Seconds between two log lines about the progress of a replay.
PROGRESS_SECONDS = 10.0
#: A copy that is at most so many events behind the live one is close enough for the switch.
CLOSE = 500
#: How often, and for how many seconds each time, to wait for the last readers of the old copy.
TRIES, LOCK_SECONDS = 5, 2
#: Seconds to wait for the readers of a table that moves; new readers have to wait behind the move.
MOVE_SECONDS = 0.5

Replay = Callable[[Connection, int], Awaitable[None]]
"""Applies the log up to and including a position, on a connection to a copy of the read models."""
Replays = Callable[[Models], Replay]
"""Makes a Replay for a copy with these read models."""
End = Callable[[], Awaitable[int]]
"""The position of the newest event of the log."""


class Newer(Exception):
    """A newer program built the live read models: this one does not change them."""


class CannotMove(Exception):
    """The kept tables cannot move: a long read blocks them, or they are older than the others."""


async def where(conn: Connection, models: Models, schema: str) -> Standing:
    """Compare the versions of the read models in `schema` with those of this program."""
    return standing(await copies.stored_versions(conn, schema), versions(models))


async def ready(conn: Connection, dsn: str, shelf: Shelf, replays: Replays) -> None:
    """Return when the live read models have this program's version and `conn` is their only writer.

    Raises Newer.
    """
    logged = False
    while True:
        match await where(conn, shelf.models, shelf.schema):
            case Standing.NEWER:
                raise Newer("the read models have a newer version; `nebula rebuild` builds them for this version")
            case Standing.OLDER:
                await replace(conn, dsn, shelf, replays)
            case Standing.MISSING | Standing.SAME if await free(conn, shelf.schema):
                found = await where(conn, shelf.models, shelf.schema)
                if found is Standing.MISSING:
                    await copies.make(conn, shelf.models, shelf.schema, indexed=False)
                    log.info("read models created; replaying the log", schema=shelf.schema)
                if found in (Standing.MISSING, Standing.SAME):
                    await copies.grant(conn, shelf.models, shelf.schema)  # an earlier program granted more
                    await drop_old(conn, shelf)
                    return
            case _:
                if not logged:
                    log.info("another process updates the read models; standing by", schema=shelf.schema)
                    logged = True
                await asyncio.sleep(STANDBY_SECONDS)


async def replace(conn: Connection, dsn: str, shelf: Shelf, replays: Replays, *, end: End | None = None) -> None:
    """Replace the live read models by those of this program's version; `conn` is then their writer.

    `end`: gives the end of the log. With it, all read models are built again from the whole log, whatever their
    versions.
    """
    async with await database.connect(dsn, "upgrade", shelf.next) as new:
        await new.execute("SET synchronous_commit = off")
        await database.alone(new, shelf.next)
        if end is None and await where(conn, shelf.models, shelf.schema) is not Standing.OLDER:
            return  # another process did it
        kept = await unchanged(conn, shelf) if end is None else ()
        try:
            await build(conn, new, dsn, shelf, replays, kept, end)
        except (CannotMove, errors.UndefinedTable) as error:  # (somebody dropped a table that should move)
            log.warning("building all read models again", error=str(error).strip())
            await database.release(conn, shelf.schema)  # an older process may update the live ones meanwhile
            await build(conn, new, dsn, shelf, replays, (), end)
    log.info("read models of the new version are live", schema=shelf.schema, position=await checkpoint(conn))
    await drop_old(conn, shelf)


async def unchanged(conn: Connection, shelf: Shelf) -> Models:
    """The read models whose live tables can be kept."""
    known = await copies.stored_versions(conn, shelf.schema) or {}
    return [model for model in shelf.models if known.get(model.name) == model.version and not model.of_aggregates]


async def build(
    conn: Connection, new: Connection, dsn: str, shelf: Shelf, replays: Replays, kept: Models, end: End | None
) -> None:
    """Build all read models except those that are kept, and switch. Raises CannotMove."""
    names = {model.name for model in kept}
    made = [model for model in shelf.models if model.name not in names]
    replay = replays(made)
    if end is not None or await where(new, made, shelf.next) is not Standing.SAME:
        await copies.make(new, made, shelf.next, indexed=False)
    position = await checkpoint(new)
    log.info("building read models of a new version beside the live ones", position=position, kept=sorted(names))
    async with logging_progress(conn, shelf):
        if end is not None:
            await replay(new, await end())
            await copies.index(new, made)
        else:
            await catch_up(conn, new, replay)
            await copies.index(new, made)
            await compared(dsn, new, Shelf(shelf.schema, made), replay)
            await catch_up(conn, new, replay)
    await take_over(conn, shelf)
    position = await (end() if end is not None else live_position(conn, kept))
    await replay(new, position)
    if kept and await checkpoint(new) != position:
        raise CannotMove("the live read models are older than the new ones: Postgres lost its newest transactions")
    await switch(conn, shelf, kept)


async def live_position(conn: Connection, kept: Models) -> int:
    """The position of the live copy. The kept tables and the new ones beside them must reflect exactly the same
    position.

    A crash of Postgres may lose its newest transactions, and a checkpoint may have been changed by hand.
    """
    positioned = [model for model in kept if model.positioned]
    return await (reached.mended(conn, positioned) if positioned else checkpoint(conn))


async def catch_up(conn: Connection, new: Connection, replay: Replay) -> None:
    """Bring the new copy close to the live one, which may continue meanwhile."""
    while True:
        live = await checkpoint(conn)
        behind = live - await checkpoint(new)
        await replay(new, live)
        if behind <= CLOSE:
            return


async def compared(dsn: str, new: Connection, made: Shelf, replay: Replay) -> None:
    """Compare the tables whose version is unchanged with the live ones, at one position, and log the differences.

    `made`: the read models of the new copy.
    """
    async with await database.connect(dsn, "upgrade", made.schema) as live, compare.snapshot(live):
        known = await copies.stored_versions(live, made.schema) or {}
        tables = [table for model in made.models if known.get(model.name) == model.version for table in model.tables]
        position = await checkpoint(live)
        if not tables or await checkpoint(new) > position:
            return
        await replay(new, position)
        found = await compare.differing(live, made.schema, new, made.next, tables)
    if found:
        log.error(
            "live read models are not what the log makes of them; the new ones replace them",
            position=position,
            rows={each.table: each.count for each in found},
        )


async def take_over(conn: Connection, shelf: Shelf) -> None:
    """Become the only writer of the live copy. The session that writes to it now is ended."""
    logged = False
    while not await free(conn, shelf.schema):
        try:
            await conn.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_locks
                   WHERE locktype = 'advisory' AND classid = %s AND objid = (hashtext(%s)::bigint & 4294967295)
                   AND granted AND pid <> pg_backend_pid()
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())""",
                [WRITER, shelf.schema],
            )
        except errors.InsufficientPrivilege as error:
            if not logged:
                log.warning("an older process updates the live read models; stop it", error=str(error).strip())
                logged = True
            await asyncio.sleep(STANDBY_SECONDS)
        await asyncio.sleep(0.02)


async def switch(conn: Connection, shelf: Shelf, kept: Models) -> None:
    """Make the new copy the live one, in one transaction: a read sees the old or the new copy. Raises CannotMove."""
    await drop_old(conn, shelf, patient=True)
    live, old, new = (sql.Identifier(name) for name in (shelf.schema, shelf.old, shelf.next))
    for _ in range(TRIES):
        with contextlib.suppress(errors.LockNotAvailable):
            async with conn.transaction():
                await conn.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
                await move(conn, shelf, kept)
                cursor = await conn.execute("SELECT to_regnamespace(%s) AS found", [shelf.schema])
                row = await cursor.fetchone()
                if row is not None and row["found"] is not None:
                    await conn.execute(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(live, old))
                await conn.execute(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(new, live))
                await conn.execute("SELECT pg_notify(current_schema() || '_position', position::text) FROM checkpoint")
            return
        await asyncio.sleep(MOVE_SECONDS)  # now the readers that had to wait can read
    raise CannotMove("a long read blocks the live read models")


async def move(conn: Connection, shelf: Shelf, kept: Models) -> None:
    """Move the kept tables from the live copy to the new one. Raises LockNotAvailable while they are being read."""
    if not kept:
        return
    await conn.execute(f"SET LOCAL lock_timeout = '{int(MOVE_SECONDS * 1000)}ms'".encode())
    for table in (table for model in kept for table in model.tables):
        of, to = sql.Identifier(shelf.schema, table), sql.Identifier(shelf.next)
        await conn.execute(sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(of, to))
    await conn.execute(
        sql.SQL("INSERT INTO {} SELECT * FROM {} WHERE model = ANY (%s)").format(
            sql.Identifier(shelf.next, "schema_version"), sql.Identifier(shelf.schema, "schema_version")
        ),
        [[model.name for model in kept]],
    )


async def drop_old(conn: Connection, shelf: Shelf, *, patient: bool = False) -> None:
    """Drop the copy that was replaced, once nobody reads it any more. Raises LockNotAvailable when `patient`."""
    for attempt in range(1, TRIES + 1):
        try:
            async with conn.transaction():
                await conn.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'".encode())
                await drop(conn, shelf.old)
            return
        except errors.LockNotAvailable:
            if attempt == TRIES and patient:
                raise
    log.warning("the old read models are still being read; the next start drops them", schema=shelf.old)


@contextlib.asynccontextmanager
async def logging_progress(conn: Connection, shelf: Shelf) -> AsyncIterator[None]:
    """Log the position of the new copy regularly. `conn` is not the connection that fills it."""

    async def progress() -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            cursor = await conn.execute(f"SELECT position FROM {shelf.next}.checkpoint".encode())  # noqa: S608
            row = await cursor.fetchone()
            log.info("read models of a new version are being built", position=row and row["position"])

    task = asyncio.create_task(progress(), name="progress")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def building(pool: database.Pool, shelf: Shelf = NOW) -> int | None:
    """The position of the copy that is being built; None if there is none, or it cannot be read.

    Raises ReadModelsUnavailable.
    """
    try:
        found = await database.fetch(pool, f"SELECT to_regclass('{shelf.next}.checkpoint') IS NOT NULL AS made", {})
    except database.NotGranted:
        return None
    if found.row is None or not found.row["made"]:
        return None
    try:
        made = await database.fetch(pool, f"SELECT position FROM {shelf.next}.checkpoint", {})  # noqa: S608
    except database.ReadModelsUnavailable:  # (it has just become the live copy)
        return None
    return int(made.row["position"]) if made.row is not None else None
