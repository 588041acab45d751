"""The audit index: one row for every event of the log, with columns to search by actor, type, resource and time.

The row keeps the event's headers and its body byte for byte, so that its digest can be computed from the index alone.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import to_json

from domain.kinds import KINDS
from eventstore.log.envelope import Recorded
from projections import bulk
from projections.database import NEVER, Begins, Mine, Pool, clean, clean_json, fetch, key, of_begins, since
from projections.model import Addition, ReadModel, Session, Step
from projections.pages import cut
from projections.prepared import Prepared
from projections.storage import unsearched

DDL = """
CREATE TABLE events (
    position  bigint NOT NULL,
    time      timestamptz NOT NULL,
    stored_at timestamptz NOT NULL,
    project   text NOT NULL,
    kind      text NOT NULL,
    id        text NOT NULL,
    type      text NOT NULL,
    actor     text NOT NULL,
    operation text,
    request   text,
    subject   text NOT NULL,
    headers   json NOT NULL,
    body      bytea NOT NULL,
    owner     text NOT NULL,
    PRIMARY KEY (position) INCLUDE (time)
);
CREATE INDEX ON events (owner, position) INCLUDE (kind, type, actor);
CREATE INDEX ON events (id, position);
CREATE INDEX ON events (operation, position) WHERE operation IS NOT NULL;
CREATE INDEX ON events (request, position) WHERE request IS NOT NULL;
CREATE INDEX ON events (type, position) INCLUDE (owner, actor);
CREATE INDEX ON events (actor, position) INCLUDE (owner, kind, type);
CREATE INDEX ON events (kind, position) WHERE kind NOT IN ('vm', 'node');
""" + unsearched("events", "stored_at", "subject", "headers", "body")
"""Each search reads one index, in the order of the positions. What an index includes is compared without a look at the
rows, so rows that do not match cost little. Events of VMs and nodes are many: the primary key finds them as well.
"""

NAMES = (
    *("position", "time", "stored_at", "project", "kind", "id", "type", "actor", "operation", "request"),
    *("subject", "headers", "body", "owner"),
)
TABLE = bulk.Table.of(DDL, "events", ("position",))

#: The SQL condition of each filter, by the name of the parameter.
FILTERS: Mapping[str, str] = {
    "project": "owner = %(project)s",
    "kind": "kind = %(kind)s",
    "vm": "kind = 'vm' AND id = %(vm)s",
    "id": "id = %(id)s",
    "type": "type = %(type)s",
    "actor": "actor = %(actor)s",
    "operation": "operation = %(operation)s",
    "request": "request = %(request)s",
    "from_position": "position >= %(from_position)s",
    "to_position": "position <= %(to_position)s",
    "first": "position >= %(first)s",
    "last": "position <= %(last)s",
    "from_time": "time >= %(from_time)s",
    "to_time": "time <= %(to_time)s",
}


Values = tuple[object, ...]
"""A row, in the order of NAMES."""


def row(recorded: Recorded, state: object = None, *, stray: bool = False) -> Values:
    """The row of one message. Every message has a row, whatever its headers are.

    `state`: that of its aggregate after it. `owner` is the project whose members may see it, `system` if there is none.

    A `stray` message is part of no history. So it belongs to no operation, even if its headers name one.
    """
    headers, context = recorded.headers, recorded.context
    project, kind, id_ = tokens(recorded.subject)
    return (
        recorded.position,
        recorded.moment,
        recorded.stored_at,
        key(project),
        key(kind),
        key(id_),
        key(headers.get("ce-type", "")),
        key(context.actor),
        None if stray else key(context.operation or "") or None,
        key(context.request or "") or None,
        clean(recorded.subject),
        clean_json(as_json(headers)),
        recorded.body,
        owner_of(recorded, state),
    )


def owner_of(recorded: Recorded, state: object) -> str:
    """The project whose members may see a message, `system` if there is none. `state`: of its aggregate after it."""
    project, kind, _ = tokens(recorded.subject)
    return key(KINDS[kind].owner_of(project, state) if kind in KINDS else project)


@lru_cache(maxsize=4096)
def tokens(subject: str) -> tuple[str, str, str]:
    """Project, kind and id in a subject; empty where the subject has no such token."""
    _, _, project, kind, id_ = (*subject.split("."), "", "", "")[:5]
    return project, kind, id_


def as_json(headers: Mapping[str, str]) -> str:
    """Headers as JSON. The fast writer refuses text that is not valid Unicode."""
    try:
        return to_json(headers).decode()
    except ValueError:
        return json.dumps(dict(headers))


class Added(NamedTuple):
    """A message that gets a row, and the state of its aggregate after it."""

    recorded: Recorded
    state: object
    stray: bool


def fold(rows: dict[int, Added], step: Step[Any]) -> None:
    recorded = step.recorded
    rows[recorded.position] = Added(recorded, step.row.state if step.row is not None else None, step.stray)


def values(added: Added) -> Values:
    return row(added.recorded, added.state, stray=added.stray)


def encoded(rows: Mapping[int, Added]) -> bytes:
    """The rows in the format of COPY. Another process may have made those that depend on nothing else."""
    made: list[bytes] = []
    others: list[Values] = []
    for added in rows.values():
        if isinstance(added.recorded, Prepared) and added.recorded.copied and not added.stray:
            made.append(added.recorded.copied)
        else:
            others.append(values(added))
    return b"".join([*made, bulk.encoded(others)])


async def save(session: Session, _: Mapping[int, Added], rows: Mapping[int, Added]) -> None:
    """Add these rows."""
    await bulk.add(session.conn, TABLE, [values(added) for added in rows.values()])


EVENTS = ReadModel(
    name="events",
    version=10,
    ddl=DDL,
    tables=("events",),
    fold=fold,
    save=save,
    added=Addition("events", NAMES, encoded),
    positioned=True,
)


def recorded(found: Mapping[str, Any]) -> Recorded:
    """The event of a row, exactly as in the log."""
    return Recorded(
        position=found["position"],
        subject=found["subject"],
        headers=found["headers"],
        body=bytes(found["body"]),
        stored_at=found["stored_at"],
    )


async def page(
    pool: Pool,
    filters: Mapping[str, object],
    after: int,
    limit: int,
    *,
    mine: Mine,
    begins: Begins = NEVER,
    before: int | None = None,
    newest: bool = False,
) -> tuple[list[Recorded], int | None, int]:
    """Events after position `after` (and, if given, before `before`), in the order of the log, or the newest first.

    Returns the events, the key of the next page, and the log position. Every filter that is not None must match. The
    names of filters are those of FILTERS. `begins`: of these projects, only events from a position on.

    Raises ReadModelsUnavailable.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    conditions = ["position > %(after)s", *(FILTERS[name] for name in given), since(begins, "owner", "position")]
    if before is not None:
        conditions.append("position < %(before)s")
    if mine is not None:
        conditions.append("owner = ANY(%(mine)s)")
    where, order = " AND ".join(conditions), "position DESC" if newest else "position"
    found = await fetch(
        pool,
        f"""SELECT e.position, e.subject, e.headers, e.body, e.stored_at
            FROM (SELECT position FROM events WHERE {where} ORDER BY {order} LIMIT %(limit)s) p
            JOIN events e ON e.position = p.position""",  # noqa: S608
        {"after": after, "before": before, "limit": limit + 1, "mine": mine, **of_begins(begins), **given},
        order=order,
        planned=False,
    )
    rows, following = cut(found.rows, limit, "position")
    return [recorded(each) for each in rows], following, found.position


async def has(pool: Pool, position: int, *, mine: Mine, begins: Begins = NEVER) -> tuple[bool, int]:
    """Whether there is a message at a position, of one of the projects `mine`; and the log position.

    Raises ReadModelsUnavailable.
    """
    condition = "true" if mine is None else "owner = ANY(%(mine)s)"
    condition += f" AND {since(begins, 'owner', 'position')}"
    query = f"SELECT position FROM events WHERE position = %(at)s AND {condition}"  # noqa: S608
    found = await fetch(pool, query, {"at": position, "mine": mine, **of_begins(begins)})
    return found.row is not None, found.position
