"""The table of operations: rows, queries, and how the API shows them. The rules are in `domain/operation.py`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NotRequired

from psycopg.rows import DictRow
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from domain import operation as rules
from domain.base import Event
from domain.contract import OperationStep
from domain.kinds import KINDS
from domain.operation import Operation, Progress
from domain.vm import Notice
from eventstore.log.envelope import Recorded
from eventstore.log.operations import event_context
from projections import bulk
from projections.database import (
    LONGEST,
    NEVER,
    Begins,
    Connection,
    Mine,
    Pool,
    clean_json,
    fetch,
    of_begins,
    parsed,
    select,
    since,
)
from projections.model import NO_ROW, Batch, ReadModel, Session, Step, changes
from projections.pages import cut
from projections.storage import unsearched
from projections.times import maybe, text, utc

DDL = """
CREATE TABLE operations (
    id       text PRIMARY KEY,
    created  bigint NOT NULL,
    project  text NOT NULL,
    kind     text NOT NULL,
    resource text NOT NULL,
    status   text NOT NULL,
    state    json NOT NULL,
    owner    text NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX ON operations (created);
CREATE INDEX ON operations (owner, created);
CREATE INDEX ON operations (resource, created);
CREATE INDEX ON operations (status, created) WHERE status IN ('accepted', 'running');
""" + unsearched("operations", "state")
TABLE = bulk.Table.of(DDL, "operations", ("id",))
#: Writes and reads an operation as JSON.
STORED = TypeAdapter(Operation)


class Kept(NamedTuple):
    """An operation, and the project whose members may see it (`system` if there is none)."""

    operation: Operation
    owner: str


def touched(recorded: Recorded, event: Event, before: Any) -> Sequence[str]:
    """The ids of the operations that an event may change: its own operation, and the one that this overtakes."""
    own, other = recorded.operation, rules.overtaken(event, before)
    if own is None and other is None:
        return ()
    named = (own,) if other is None or other == own else (own, other)
    return [id_ for id_ in named if id_ is not None and len(id_) <= LONGEST]


async def load(conn: Connection, batch: Batch) -> dict[str, Kept]:
    """The stored operations that a batch may change.

    An operation that begins in the batch itself has no row yet; `fold` makes it from its events.
    """
    ids = {
        id_
        for recorded, event in batch.events
        for id_ in touched(recorded, event, batch.rows.get(recorded.ref, NO_ROW).state)
    }
    if not ids:
        return {}
    stored = await select(conn, "SELECT state::text AS state, owner FROM operations WHERE id = ANY (%s)", [sorted(ids)])
    found = [Kept(STORED.validate_json(row["state"]), row["owner"]) for row in stored]
    return {kept.operation.id: kept for kept in found}


def fold(operations: dict[str, Kept], step: Step[Any]) -> None:
    """Apply an event to its operations, by the rules of the domain."""
    if step.event is None:
        return
    ids = touched(step.recorded, step.event, step.before)
    if not ids:
        return
    context = event_context(step.recorded)
    for id_ in ids:
        kept = operations.get(id_)
        changed = rules.evolve(kept and kept.operation, id_, step.event, context)
        if changed is not None:
            operations[id_] = Kept(changed, kept.owner if kept is not None else owner(step))


def owner(step: Step[Any]) -> str:
    """The project whose members may see an operation that this event opens."""
    ref, state = step.recorded.ref, step.row.state if step.row is not None else None
    return KINDS[ref.kind].owner_of(ref.project, state) if ref.kind in KINDS else ref.project


async def save(session: Session, before: Mapping[str, Kept], after: Mapping[str, Kept]) -> None:
    """Write the operations that have changed."""
    new, old = list[bulk.Values](), list[bulk.Values]()
    for id_, (op, owner) in changes(before, after).items():
        fixed = (op.id, op.first, op.project, op.kind, op.resource)
        values = (*fixed, op.status.value, clean_json(STORED.dump_json(op).decode()), owner)
        (old if id_ in before else new).append(values)
    await bulk.write(session.conn, TABLE, new, old, many=session.many)


OPERATIONS = ReadModel(name="operations", version=10, ddl=DDL, tables=("operations",), load=load, fold=fold, save=save)


class StepView(TypedDict):
    position: int
    type: str
    time: str


class FieldView(TypedDict):
    field: str
    detail: str


class ProblemView(TypedDict):
    """Why an operation did not succeed (RFC 9457)."""

    type: str
    title: str
    code: str
    detail: str
    errors: NotRequired[list[FieldView]]


class WarningView(TypedDict):
    """A warning about an accepted request: a part of it will not have the effect that the caller may expect."""

    code: str
    detail: str


class ProgressView(TypedDict):
    bytes_done: int
    bytes_total: int | None


class OperationView(TypedDict):
    """An operation as the API shows it. `events` are the events of its resource that carry its id."""

    id: str
    verb: str
    kind: str
    resource: str
    project: str
    status: str
    actor: str
    request_id: str | None
    accepted_at: str
    ended_at: str | None
    deadline: str | None
    position: int
    problem: ProblemView | None
    progress: ProgressView | None
    warnings: list[WarningView]
    events: list[StepView]


def view(operation: Operation, steps: Iterable[OperationStep]) -> OperationView:
    """An operation with the events that carry its id."""
    return {
        "id": operation.id,
        "verb": operation.verb,
        "kind": operation.kind,
        "resource": operation.resource,
        "project": operation.project,
        "status": operation.status.value,
        "actor": operation.actor,
        "request_id": operation.request_id,
        "accepted_at": text(operation.accepted_at),
        "ended_at": maybe(operation.ended_at),
        "deadline": maybe(operation.deadline),
        "position": operation.position,
        "problem": problem(operation.problem),
        "progress": progress(operation.progress),
        "warnings": warnings(operation.notices),
        "events": [{"position": step["position"], "type": step["type"], "time": utc(step["time"])} for step in steps],
    }


def problem(document: Mapping[str, Any] | None) -> ProblemView | None:
    """A problem document with its fields in a fixed order."""
    if document is None:
        return None
    shown: ProblemView = {
        "type": document["type"],
        "title": document["title"],
        "code": document["code"],
        "detail": document["detail"],
    }
    if "errors" in document:
        shown["errors"] = [{"field": error["field"], "detail": error["detail"]} for error in document["errors"]]
    return shown


def warnings(notices: Iterable[Notice]) -> list[WarningView]:
    return [{"code": notice.code, "detail": notice.detail} for notice in notices]


def progress(of: Progress | None) -> ProgressView | None:
    if of is None:
        return None
    return {"bytes_done": of.bytes_done, "bytes_total": of.bytes_total}


#: Operations with their steps. `{where}` is filled in below.
_QUERY = """
    SELECT o.created, o.state::text AS state, coalesce(
        (SELECT json_agg(json_build_object('position', e.position, 'type', e.type, 'time', e.time)
                         ORDER BY e.position)
         FROM events e
         WHERE e.operation = o.id AND e.project = o.project AND e.kind = o.kind AND e.id = o.resource), '[]') AS steps
    FROM operations o WHERE {where}
"""


async def get(pool: Pool, operation: str, *, mine: Mine, begins: Begins = NEVER) -> tuple[OperationView | None, int]:
    """One operation, and the log position. None if it does not exist, or is not of the projects `mine`.

    `begins`: of these projects, only those accepted from a position on. Raises ReadModelsUnavailable.
    """
    where = "o.id = %(id)s" if mine is None else "o.id = %(id)s AND o.owner = ANY(%(mine)s)"
    where += f" AND {since(begins, 'o.owner', 'o.created')}"
    found = await fetch(pool, _QUERY.format(where=where), {"id": operation, "mine": mine, **of_begins(begins)})
    return (shown(found.row) if found.row else None), found.position


async def ended(pool: Pool, ids: list[str]) -> tuple[list[OperationView], int]:
    """Those of these operations that have ended, and the log position. Raises ReadModelsUnavailable."""
    query = _QUERY.format(where="o.id = ANY (%(ids)s) AND o.status = ANY (%(ended)s)")
    found = await fetch(pool, query, {"ids": ids, "ended": sorted(each.value for each in rules.ENDED)})
    return [shown(row) for row in found.rows], found.position


def shown(row: DictRow) -> OperationView:
    """The operation in a row of the query. Raises ReadModelsUnavailable."""
    return view(parsed(STORED, row["state"]), row["steps"])


async def page(
    pool: Pool,
    filters: Mapping[str, str | None],
    before: int | None,
    limit: int,
    *,
    mine: Mine,
    begins: Begins = NEVER,
) -> tuple[list[OperationView], int | None, int]:
    """Operations, the newest first: the views, the key of the next page, the log position.

    `begins`: as of `get`. Raises ReadModelsUnavailable.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    conditions = [f"o.{COLUMNS[name]} = %({name})s" for name in given]
    if before is not None:
        conditions.append("o.created < %(before)s")
    if mine is not None:
        conditions.append("o.owner = ANY(%(mine)s)")
    conditions.append(since(begins, "o.owner", "o.created"))
    where = " AND ".join(conditions) + " ORDER BY o.created DESC LIMIT %(limit)s"
    found = await fetch(
        pool,
        _QUERY.format(where=where),
        {**given, "before": before, "limit": limit + 1, "mine": mine, **of_begins(begins)},
        order="created DESC",
    )
    rows, following = cut(found.rows, limit, "created")
    return [shown(row) for row in rows], following, found.position


#: The columns that lists filter by, by the name of the parameter.
COLUMNS = {"project": "owner", "vm": "resource", "kind": "kind", "status": "status"}
