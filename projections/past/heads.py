"""The heads: the newest state of each aggregate of any kind, from which the past folds the next event.

A head also tells from when to when its aggregate existed, so that a list of the past looks at no row of an aggregate
that did not exist then.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from eventstore.log.envelope import Ref
from projections import bulk
from projections.books import TABLES
from projections.database import Connection, select
from projections.model import Batch, ReadModel, Row, Session, Step

DDL = """
CREATE TABLE heads (
    kind     text NOT NULL,
    project  text NOT NULL,
    id       text NOT NULL,
    version  bigint NOT NULL,
    position bigint NOT NULL,
    created  bigint NOT NULL,
    digest   text NOT NULL,
    gone     bigint,
    state    jsonb,
    PRIMARY KEY (kind, project, id)
) WITH (fillfactor = 80, toast_tuple_target = 128);
ALTER TABLE heads ALTER COLUMN state SET STORAGE EXTERNAL;
CREATE INDEX ON heads (kind, project, created);
CREATE INDEX ON heads (kind, created);
"""
"""`gone`: position of the event since which the aggregate is deleted; null if it is not. `state` is null if all events
so far are of unknown types. States are stored outside of the rows, so that lists read few pages.
"""
TABLE = bulk.Table.of(DDL, "heads", ("kind", "project", "id"))


class Head(NamedTuple):
    """An aggregate after its last event, and since when it is deleted."""

    row: Row[Any]
    gone: int | None = None


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


async def load(conn: Connection, batch: Batch) -> dict[Ref, Head]:
    """The heads of a batch. Only deleted aggregates are asked since when they are."""
    rows = {ref: row for ref, row in batch.rows.items() if row.version and ref.kind in TABLES}
    deleted = [ref for ref, row in rows.items() if is_deleted(ref, row)]
    gone: dict[Ref, int] = {}
    if deleted:
        stored = await select(
            conn,
            bulk.lookup("heads", TABLE.key, "kind, project, id, gone"),
            _columns(deleted),
        )
        gone = {Ref(found["project"], found["kind"], found["id"]): found["gone"] for found in stored}
    return {ref: Head(row, gone.get(ref)) for ref, row in rows.items()}


def is_deleted(ref: Ref, row: Row[Any]) -> bool:
    return row.state is not None and TABLES[ref.kind].of.deleted(row.state)


def fold(heads: dict[Ref, Head], step: Step[Any]) -> None:
    """Each event changes the head of its aggregate. What comes after a deletion does not change when it was."""
    row = step.row
    if row is None:
        return
    ref = step.recorded.ref
    before = heads.get(ref)
    gone = None
    if is_deleted(ref, row):
        gone = before.gone if before is not None and before.gone is not None else row.position
    heads[ref] = Head(row, gone)


async def save(session: Session, before: Mapping[Ref, Head], after: Mapping[Ref, Head]) -> None:
    """Write the heads that have changed."""
    new, old = list[bulk.Values](), list[bulk.Values]()
    for ref, head in after.items():
        if head is not before.get(ref):
            (old if ref in before else new).append(_values(ref, head))
    await bulk.write(session.conn, TABLE, new, old, many=session.many)


def _values(ref: Ref, head: Head) -> bulk.Values:
    row = head.row
    text = None if row.state is None else TABLES[ref.kind].stored_json(row.state)
    return (ref.kind, ref.project, ref.id, row.version, row.position, row.created, row.digest, head.gone, text)


def _columns(refs: Collection[Ref]) -> list[list[str]]:
    return [[ref.kind for ref in refs], [ref.project for ref in refs], [ref.id for ref in refs]]


HEADS = ReadModel(
    name="heads",
    version=1,
    ddl=DDL,
    tables=("heads",),
    kinds=frozenset(TABLES),
    histories=histories,
    load=load,
    fold=fold,
    save=save,
)
