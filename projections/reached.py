"""Where the read models stand, by their rows: the checkpoint is held to it before anything is taken in.

Rows and checkpoint change in one transaction, so they agree, unless somebody changed the checkpoint by hand. Taken at
its word, one that was set back would have good events applied twice, and one that was set forward would leave some
out: both break the histories, and each event that follows would be parked as malformed.
"""

from projections import database
from projections.books import Models
from projections.database import Connection
from runtime import logs

log = logs.get(__name__)


async def newest(conn: Connection, models: Models) -> int:
    """The position of the newest message that has left it in a row; 0 where none has."""
    tables = [model.tables[0] for model in models if model.positioned]
    each = " UNION ALL ".join(f"SELECT max(position) AS position FROM {table}" for table in tables)  # noqa: S608
    cursor = await conn.execute(f"SELECT max(position) AS position FROM ({each}) AS every".encode())  # noqa: S608
    found = await cursor.fetchone()
    return int(found["position"] or 0) if found is not None else 0


async def mended(conn: Connection, models: Models) -> int:
    """The position to go on from. A checkpoint that says another one than the rows is put right.

    It may be ahead of the rows without harm: the last messages could not be taken in. They are then looked at again.
    """
    said, reached = await database.checkpoint(conn), await newest(conn, models)
    if said != reached:
        log.warning("the checkpoint of the read models is not where their rows are", checkpoint=said, rows=reached)
        async with conn.transaction():
            await conn.execute("INSERT INTO checkpoint (position) VALUES (0) ON CONFLICT DO NOTHING")
            await conn.execute("UPDATE checkpoint SET position = %s, updated_at = now()", [reached])
    return reached
