"""The ends of those histories that have no row yet: nothing that is known here has happened to the aggregate.

Their next event is judged by it (`eventstore/log/judge.py`). A row's own end stands in the row.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from eventstore.log.envelope import Ref
from projections.aggregates import Row
from projections.database import Connection
from projections.model import ReadModel

DDL = """
CREATE TABLE tips (
    project  text NOT NULL,
    kind     text NOT NULL,
    id       text NOT NULL,
    version  bigint NOT NULL,
    position bigint NOT NULL,
    created  bigint NOT NULL,
    digest   text NOT NULL,
    PRIMARY KEY (project, kind, id)
);
"""
READ_MODEL = ReadModel("tips", 1, DDL, ("tips",), served=False)


async def load(conn: Connection, refs: Iterable[Ref]) -> dict[Ref, Row[Any]]:
    """The ends there are among those of these aggregates."""
    asked = list(refs)
    if not asked:
        return {}
    cursor = await conn.execute(
        """SELECT project, kind, id, version, position, created, digest FROM tips
           JOIN unnest(%s::text[], %s::text[], %s::text[]) AS asked (project, kind, id) USING (project, kind, id)""",
        [[ref.project for ref in asked], [ref.kind for ref in asked], [ref.id for ref in asked]],
    )
    return {
        Ref(found["project"], found["kind"], found["id"]): Row(
            None, found["version"], found["position"], found["created"], found["digest"]
        )
        for found in await cursor.fetchall()
    }


async def save(conn: Connection, rows: Mapping[Ref, Row[Any]]) -> None:
    """Write these ends, whatever stood there."""
    if not rows:
        return
    async with conn.cursor() as cursor:
        await cursor.executemany(
            """INSERT INTO tips (project, kind, id, version, position, created, digest)
               VALUES (%s, %s, %s, %s, %s, %s, %s)
               ON CONFLICT (project, kind, id) DO UPDATE SET
               version = EXCLUDED.version, position = EXCLUDED.position, digest = EXCLUDED.digest""",
            [(r.project, r.kind, r.id, row.version, row.position, row.created, row.digest) for r, row in rows.items()],
        )


async def drop(conn: Connection, refs: Iterable[Ref]) -> None:
    """Forget the ends of these histories: they have rows now."""
    asked = list(refs)
    if asked:
        await conn.execute(
            """DELETE FROM tips USING unnest(%s::text[], %s::text[], %s::text[]) AS asked (project, kind, id)
               WHERE (tips.project, tips.kind, tips.id) = (asked.project, asked.kind, asked.id)""",
            [[ref.project for ref in asked], [ref.kind for ref in asked], [ref.id for ref in asked]],
        )
