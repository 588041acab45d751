"""The position that the rows of the read models reflect. The checkpoint is corrected to it before any message is
applied.

Rows and checkpoint change in one transaction. So they agree, unless somebody changed the checkpoint by hand. With a
checkpoint that is too low, events would be applied twice; with one that is too high, events would be skipped. Both
break the histories, and every later event would be parked as malformed.
"""

from projections import database
from projections.books import Models
from projections.database import Connection
from runtime import logs

log = logs.get(__name__)


async def newest(conn: Connection, models: Models) -> int:
    """The highest position in any row; 0 if there are no rows."""
    tables = [model.tables[0] for model in models if model.positioned]
    each = " UNION ALL ".join(f"SELECT max(position) AS position FROM {table}" for table in tables)  # noqa: S608
    cursor = await conn.execute(f"SELECT max(position) AS position FROM ({each}) AS every".encode())  # noqa: S608
    found = await cursor.fetchone()
    return int(found["position"] or 0) if found is not None else 0


async def mended(conn: Connection, models: Models) -> int:
    """The position to continue from. A checkpoint that differs from the rows is corrected.

    The checkpoint may be higher than the rows without an error: the last messages could not be applied. They are then
    tried again. A part of the read models whose rows have no positions (`positioned`) has only the checkpoint.
    """
    if not any(model.positioned for model in models):
        return await database.checkpoint(conn)
    stored, reached = await database.checkpoint(conn), await newest(conn, models)
    if stored != reached:
        log.warning("the checkpoint of the read models is not where their rows are", checkpoint=stored, rows=reached)
        async with conn.transaction():
            await conn.execute("INSERT INTO checkpoint (position) VALUES (0) ON CONFLICT DO NOTHING")
            await conn.execute("UPDATE checkpoint SET position = %s, updated_at = now()", [reached])
    return reached
