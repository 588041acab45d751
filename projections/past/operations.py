"""The versions of operations: a row for each event that touched one, with its record after that event.

An event that carries the id of an operation is one of its steps, also before another event opens the operation.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from domain.base import Event
from domain.operation import ENDED, Operation
from eventstore.log.envelope import Recorded
from projections import bulk, operation_rows
from projections.database import LONGEST, Connection, clean_json, key, select
from projections.model import NO_ROW, Batch, ReadModel, Session, Step
from projections.operation_rows import STORED, Kept, touched
from projections.storage import inside, unsearched

DDL = f"""
CREATE TABLE operation_heads (
    id       text PRIMARY KEY,
    created  bigint NOT NULL,
    project  text NOT NULL,
    kind     text NOT NULL,
    resource text NOT NULL,
    owner    text NOT NULL,
    ended    bigint,
    state    text NOT NULL
) WITH (fillfactor = 80, toast_tuple_target = 128);
{inside("operation_heads", ("id", "project", "kind", "resource", "owner"))}
ALTER TABLE operation_heads ALTER COLUMN state SET STORAGE EXTERNAL;
CREATE INDEX ON operation_heads (created);
CREATE INDEX ON operation_heads (owner, created);
CREATE INDEX ON operation_heads (resource, created);
CREATE TABLE past_operations (
    id       text NOT NULL,
    position bigint NOT NULL,
    step     boolean NOT NULL,
    origin   text,
    type     text NOT NULL,
    time     timestamptz NOT NULL,
    status   text,
    state    text,
    PRIMARY KEY (id, position)
) WITH (toast_tuple_target = 256);
{inside("past_operations", ("id", "origin", "type", "status", "state"))}
{unsearched("operation_heads", "state")}
{unsearched("past_operations", "origin", "type", "state")}
"""
"""`ended`: position of the event since which the operation has ended. `step`: whether the event carries the id of the
operation and is of its aggregate. `origin`: the aggregate of the event, if the operation was not open yet: then it is a
step only if the operation is of that aggregate. `status`, `state`: null if the event did not change the operation.
States are texts: jsonb would write the keys of a problem in another order than the fold that made it.
"""
HEADS = bulk.Table.of(DDL, "operation_heads", ("id",))
VERSIONS = bulk.Table.of(DDL, "past_operations", ("id", "position"))


class Version(NamedTuple):
    """What one event did to an operation. `after`: the operation after it; None if it did not change it."""

    step: bool
    origin: str | None
    type: str
    time: datetime
    after: Operation | None


class Head(NamedTuple):
    """The newest record of an operation, and since when it has ended."""

    kept: Kept
    ended: int | None


Key = str | tuple[str, int]
"""Of a head: the operation. Of a version: the operation and the position of the event."""


def ids_of(recorded: Recorded, event: Event | None, before: Any) -> Sequence[str]:
    """The operations that an event may touch. One that changes no state touches only its own."""
    if event is not None:
        return touched(recorded, event, before)
    own = recorded.operation
    return (own,) if own is not None and len(own) <= LONGEST and "\x00" not in own else ()


async def load(conn: Connection, batch: Batch) -> dict[Key, Head | Version]:
    """The heads of the operations that a batch may change."""
    ids = {
        id_
        for recorded, event in batch.events
        for id_ in ids_of(recorded, event, batch.rows.get(recorded.ref, NO_ROW).state)
    }
    if not ids:
        return {}
    stored = await select(
        conn,
        "SELECT id, state, owner, ended FROM operation_heads WHERE id = ANY (%s)",
        [sorted(ids)],
    )
    return {row["id"]: Head(Kept(STORED.validate_json(row["state"]), row["owner"]), row["ended"]) for row in stored}


def fold(rows: dict[Key, Head | Version], step: Step[Any]) -> None:
    """Add a version of each operation that an event touches, and keep the newest record."""
    if step.stray:
        return
    recorded = step.recorded
    ids = ids_of(recorded, step.event, step.before)
    if not ids:
        return
    held = {id_: head.kept for id_ in ids if isinstance(head := rows.get(id_), Head)}
    after = dict(held)
    operation_rows.fold(after, step)
    for id_ in ids:
        kept, own = after.get(id_), id_ == recorded.operation
        changed = kept is not None and kept is not held.get(id_)
        if kept is not None and changed:
            before = rows.get(id_)
            ended = before.ended if isinstance(before, Head) else None
            if ended is None and kept.operation.status in ENDED:
                ended = recorded.position
            rows[id_] = Head(kept, ended)
        if own or changed:
            rows[id_, recorded.position] = Version(
                step=own and (kept is None or concerns(kept.operation, recorded)),
                origin=origin(recorded) if kept is None else None,
                type=key(recorded.type),
                time=recorded.moment,
                after=kept.operation if kept is not None and changed else None,
            )


def concerns(operation: Operation, recorded: Recorded) -> bool:
    ref = recorded.ref
    return (operation.project, operation.kind, operation.resource) == (ref.project, ref.kind, ref.id)


def origin(recorded: Recorded) -> str:
    ref = recorded.ref
    return key(f"{ref.project}/{ref.kind}/{ref.id}")


async def save(session: Session, before: Mapping[Key, Head | Version], after: Mapping[Key, Head | Version]) -> None:
    """Write the heads that have changed, and add the versions."""
    new, old, versions = list[bulk.Values](), list[bulk.Values](), list[bulk.Values]()
    texts: dict[int, str] = {}

    def text(operation: Operation) -> str:
        """The last version and the head are one value."""
        if id(operation) not in texts:
            texts[id(operation)] = clean_json(STORED.dump_json(operation).decode())
        return texts[id(operation)]

    for name, row in after.items():
        if isinstance(row, Head):
            if row is not before.get(name):
                op = row.kept.operation
                fixed = (op.id, op.first, op.project, op.kind, op.resource, row.kept.owner)
                (old if name in before else new).append((*fixed, row.ended, text(op)))
        elif isinstance(name, tuple):
            state = None if row.after is None else text(row.after)
            status = None if row.after is None else row.after.status.value
            versions.append((*name, row.step, row.origin, row.type, row.time, status, state))
    await bulk.write(session.conn, HEADS, new, old, many=session.many)
    await bulk.extend(session.conn, VERSIONS, versions, many=session.many)


OPERATIONS = ReadModel(
    name="past_operations",
    version=operation_rows.OPERATIONS.version * 100 + 1,
    ddl=DDL,
    tables=("past_operations", "operation_heads"),
    load=load,
    fold=fold,
    save=save,
)
