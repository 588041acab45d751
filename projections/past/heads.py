"""The heads: the newest state of each aggregate of any kind, from which the past folds the next event.

A head also tells from when to when its aggregate existed, so that a list of the past looks at no row of an aggregate
that did not exist then.
"""

from collections.abc import Collection, Mapping
from typing import Any

from eventstore.log.envelope import Ref
from projections import bulk
from projections.books import TABLES
from projections.database import Connection, select
from projections.model import Batch, ReadModel, Row, Session, Step
from projections.storage import inside, unsearched

DDL = f"""
CREATE TABLE heads (
    kind     text NOT NULL,
    project  text NOT NULL,
    id       text NOT NULL,
    version  bigint NOT NULL,
    position bigint NOT NULL,
    created  bigint NOT NULL,
    digest   text NOT NULL,
    gone     bigint,
    state    json,
    PRIMARY KEY (kind, project, id)
) WITH (fillfactor = 80, toast_tuple_target = 128);
{inside("heads", ("kind", "project", "id", "digest"))}
ALTER TABLE heads ALTER COLUMN state SET STORAGE EXTERNAL;
CREATE INDEX ON heads (kind, project, created) WHERE created > 0;
CREATE INDEX ON heads (kind, created) WHERE created > 0;
{unsearched("heads", "digest", "state")}
"""
"""`gone`: null if the aggregate is not deleted, else the position of its last event: from there on no list looks at its
rows. `state` is null if all events so far are of unknown types. States are stored outside of the rows, so that lists
read few pages; keys are not. The condition of the indexes keeps them for lists: a look-up by the key, which is planned
while the table is empty, might otherwise read all aggregates of a project by one of them.
"""
TABLE = bulk.Table.of(DDL, "heads", ("kind", "project", "id"))


async def histories(conn: Connection, refs: Collection[Ref]) -> dict[Ref, Row[Any]]:
    """The stored aggregates."""
    stored = await select(
        conn,
        bulk.lookup("heads", TABLE.key, "kind, project, id, version, position, created, digest, state::text AS state"),
        _columns(refs),
    )
    return {
        Ref(found["project"], found["kind"], found["id"]): Row(
            None if found["state"] is None else TABLES[found["kind"]].of.stored.validate_json(found["state"]),
            found["version"],
            found["position"],
            found["created"],
            found["digest"],
        )
        for found in stored
    }


async def load(_: Connection, batch: Batch) -> dict[Ref, Row[Any]]:
    return {ref: row for ref, row in batch.rows.items() if row.version and ref.kind in TABLES}


def fold(heads: dict[Ref, Row[Any]], step: Step[Any]) -> None:
    """Each event changes the head of its aggregate."""
    if step.row is not None:
        heads[step.recorded.ref] = step.row


async def save(session: Session, before: Mapping[Ref, Row[Any]], after: Mapping[Ref, Row[Any]]) -> None:
    """Write the heads that have changed."""
    new, old = list[bulk.Values](), list[bulk.Values]()
    for ref, row in after.items():
        if row is not before.get(ref):
            (old if ref in before else new).append(_values(ref, row))
    await bulk.write(session.conn, TABLE, new, old, many=session.many)


def _values(ref: Ref, row: Row[Any]) -> bulk.Values:
    table = TABLES[ref.kind]
    gone = row.position if row.state is not None and table.of.deleted(row.state) else None
    text = None if row.state is None else table.stored_json(row.state)
    return (ref.kind, ref.project, ref.id, row.version, row.position, row.created, row.digest, gone, text)


def _columns(refs: Collection[Ref]) -> list[list[str]]:
    return [[ref.kind for ref in refs], [ref.project for ref in refs], [ref.id for ref in refs]]


HEADS = ReadModel(
    name="heads",
    version=4,
    ddl=DDL,
    tables=("heads",),
    kinds=frozenset(TABLES),
    histories=histories,
    load=load,
    fold=fold,
    save=save,
)
