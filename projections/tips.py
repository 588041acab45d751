"""The last events of aggregates that have no row yet, because no known event has happened to them.

Their next event is judged by it (`eventstore/log/judge.py`). A row's own end stands in the row.
"""

from collections.abc import Collection, Mapping
from typing import Any

from eventstore.log.envelope import Ref
from projections.database import Connection
from projections.model import Batch, ReadModel, Row, Session, Step, changes

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


async def ends(conn: Connection, refs: Collection[Ref]) -> dict[Ref, Row[Any]]:
    """The ends there are among those of these aggregates."""
    cursor = await conn.execute(
        """SELECT project, kind, id, version, position, created, digest FROM tips
           JOIN unnest(%s::text[], %s::text[], %s::text[]) AS asked (project, kind, id) USING (project, kind, id)""",
        [[ref.project for ref in refs], [ref.kind for ref in refs], [ref.id for ref in refs]],
    )
    return {
        Ref(found["project"], found["kind"], found["id"]): Row(
            None, found["version"], found["position"], found["created"], found["digest"]
        )
        for found in await cursor.fetchall()
    }


async def load(_: Connection, batch: Batch) -> dict[Ref, Row[Any] | None]:
    return {ref: row for ref, row in batch.rows.items() if row.version and row.state is None}


def fold(rows: dict[Ref, Row[Any] | None], step: Step[Any]) -> None:
    """An aggregate that has a row of its own has no end here."""
    if step.row is not None and (step.row.state is None or step.recorded.ref in rows):
        rows[step.recorded.ref] = step.row if step.row.state is None else None


async def save(session: Session, before: Mapping[Ref, Row[Any] | None], after: Mapping[Ref, Row[Any] | None]) -> None:
    """Write the ends that have moved; forget those of what has a row now."""
    changed = changes(before, after)
    moved = {ref: row for ref, row in changed.items() if row is not None}
    gone = [ref for ref, row in changed.items() if row is None]
    if moved:
        async with session.conn.cursor() as cursor:
            await cursor.executemany(
                """INSERT INTO tips (project, kind, id, version, position, created, digest)
                   VALUES (%s, %s, %s, %s, %s, %s, %s)
                   ON CONFLICT (project, kind, id) DO UPDATE SET
                   version = EXCLUDED.version, position = EXCLUDED.position, digest = EXCLUDED.digest""",
                [(*ref, row.version, row.position, row.created, row.digest) for ref, row in moved.items()],
            )
    if gone:
        await session.conn.execute(
            """DELETE FROM tips USING unnest(%s::text[], %s::text[], %s::text[]) AS asked (project, kind, id)
               WHERE (tips.project, tips.kind, tips.id) = (asked.project, asked.kind, asked.id)""",
            [[ref.project for ref in gone], [ref.kind for ref in gone], [ref.id for ref in gone]],
        )


TIPS = ReadModel(
    name="tips",
    version=1,
    ddl=DDL,
    tables=("tips",),
    histories=ends,
    load=load,
    fold=fold,
    save=save,
    served=False,
    positioned=True,
)
