"""Where the read models stand, by their rows: the checkpoint is held to it before anything is taken in.

Rows and checkpoint change in one transaction, so they agree, unless somebody changed the checkpoint by hand. Taken at
its word, one that was set back would have good events applied twice, and one that was set forward would leave some
out: both break the histories, and each event that follows would be parked as malformed.
"""

from projections import database
from projections.books import TABLES
from projections.database import Connection
from runtime import logs

log = logs.get(__name__)

#: Every table in which the newest message of the log may have left its position.
POSITIONS = (*(table.table for table in TABLES.values()), "events", "tips")


async def mended(conn: Connection) -> int:
    """The position to go on from. A checkpoint that says another one than the rows is put right.

    It may be ahead of the rows without harm: the last messages could not be taken in. They are then looked at again.
    """
    said = await database.checkpoint(conn)
    newest = " UNION ALL ".join(f"SELECT max(position) AS position FROM {table}" for table in POSITIONS)  # noqa: S608
    found = await (await conn.execute(f"SELECT max(position) AS position FROM ({newest}) AS every")).fetchone()  # noqa: S608
    reached = int(found["position"] or 0) if found is not None else 0
    if said != reached:
        log.warning("the checkpoint of the read models is not where their rows are", checkpoint=said, rows=reached)
        async with conn.transaction():
            await conn.execute("INSERT INTO checkpoint (position) VALUES (0) ON CONFLICT DO NOTHING")
            await conn.execute("UPDATE checkpoint SET position = %s, updated_at = now()", [reached])
    return reached
