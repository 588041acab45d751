"""Tips of aggregates without a row: all of their events so far are of unknown types.

The judge (`eventstore/log/judge.py`) needs the tip for the next event. If an aggregate has a row, the row has its tip.
"""

from collections.abc import Collection, Mapping
from typing import Any

from eventstore.log.envelope import Ref
from projections import bulk
from projections.database import Connection, select
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
TABLE = bulk.Table.of(DDL, "tips", ("project", "kind", "id"))


async def tips_of(conn: Connection, refs: Collection[Ref]) -> dict[Ref, Row[Any]]:
    """The stored tips of these aggregates."""
    stored = await select(
        conn,
        bulk.lookup("tips", TABLE.key, "project, kind, id, version, position, created, digest"),
        [[ref.project for ref in refs], [ref.kind for ref in refs], [ref.id for ref in refs]],
    )
    return {
        Ref(found["project"], found["kind"], found["id"]): Row(
            None, found["version"], found["position"], found["created"], found["digest"]
        )
        for found in stored
    }


async def load(_: Connection, batch: Batch) -> dict[Ref, Row[Any] | None]:
    return {ref: row for ref, row in batch.rows.items() if row.version and row.state is None}


def fold(rows: dict[Ref, Row[Any] | None], step: Step[Any]) -> None:
    """When an aggregate gets a row of its own, its tip is removed here."""
    if step.row is not None and (step.row.state is None or step.recorded.ref in rows):
        rows[step.recorded.ref] = step.row if step.row.state is None else None


async def save(session: Session, before: Mapping[Ref, Row[Any] | None], after: Mapping[Ref, Row[Any] | None]) -> None:
    """Write the tips that have changed; delete those of aggregates that have a row now."""
    changed = changes(before, after)
    new, old = list[bulk.Values](), list[bulk.Values]()
    for ref, row in changed.items():
        if row is not None:
            (old if ref in before else new).append((*ref, row.version, row.position, row.created, row.digest))
    await bulk.write(session.conn, TABLE, new, old, many=session.many)
    await bulk.delete(session.conn, TABLE, [ref for ref, row in changed.items() if row is None])


TIPS = ReadModel(
    name="tips",
    version=1,
    ddl=DDL,
    tables=("tips",),
    histories=tips_of,
    load=load,
    fold=fold,
    save=save,
    served=False,
    positioned=True,
)
