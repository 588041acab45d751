"""What the gateway asks about the past: resources, lists and operations as they were after all events up to a position.

The pool of each function is one of `pool`. A function that gets a position raises NotReached if the past is not there
yet, and every function raises ReadModelsUnavailable while Postgres cannot be asked, or the past was never built.
`mine`: only rows that belonged to one of these projects then; None: all.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from eventstore.log.envelope import Ref
from projections import database
from projections.aggregates import Aggregates, V
from projections.database import (
    NEVER,
    SCHEMA,
    Begins,
    Mine,
    Params,
    Pool,
    ReadModelsUnavailable,
    Snapshot,
    fetch,
    of_begins,
    since,
)
from projections.operation_rows import COLUMNS as OPERATION_COLUMNS, OperationView, shown
from projections.pages import Page, cut
from projections.past.models import PAST
from projections.past.versions import name_of
from projections.projects import PROJECTS

#: Clocks of handlers differ: so many of the latest times before a time are looked at for the greatest position.
CLOSE = 1000
#: The search path of reads: the past, and the index of events of the present.
SEARCH_PATH = f"{PAST.schema},{SCHEMA}"


class NotReached(ReadModelsUnavailable):
    """The past is not at the position yet. It follows the read models of the present within seconds."""


@dataclass(frozen=True, slots=True)
class Then:
    """A resource as it was. `text`: the API's JSON; `version`, `position`: those of its last event until then."""

    text: str
    deleted: bool
    version: int
    position: int


def pool(dsn: str, role: str, *, size: int = 8) -> Pool:
    """A pool of connections for the functions here. It is closed at first."""
    return database.pool(dsn, role, SEARCH_PATH, size=size)


async def position_of(pool: Pool, at: datetime) -> int:
    """The greatest position of an event with a time until `at`; 0 if there is none."""
    found = await fetch(
        pool,
        """SELECT max(position) AS position FROM
           (SELECT position FROM moments WHERE time <= %(at)s ORDER BY time DESC LIMIT %(close)s) m""",
        {"at": at, "close": CLOSE},
    )
    return int(found.row["position"] or 0) if found.row is not None else 0


async def one(pool: Pool, table: Aggregates[Any, Any], ref: Ref, position: int, *, mine: Mine) -> Then | None:
    """A resource as it was at a position, also if it was deleted then; None before its first event."""
    condition = "true" if mine is None else table.belongs
    found = await fetch(
        pool,
        f"SELECT * FROM ({one_statement(table)}) v WHERE {condition}",  # noqa: S608  (conditions are constants)
        {"project": ref.project, "id": ref.id, "at": position, "mine": mine},
    )
    reached(found, position)
    return then_of(found.row) if found.row is not None else None


def one_statement(table: Aggregates[Any, Any]) -> str:
    """The query for a resource as it was, by `project`, `id` and `at`."""
    return f"""SELECT * FROM {name_of(table)} WHERE project = %(project)s AND id = %(id)s AND position <= %(at)s
               ORDER BY position DESC LIMIT 1"""  # noqa: S608  (names of tables are constants)


async def page(
    pool: Pool,
    table: Aggregates[Any, V],
    filters: Mapping[str, str | None],
    position: int,
    after: int,
    limit: int,
    *,
    mine: Mine,
) -> Page[V]:
    """A page of a list as it was at a position: as `pages.matching`, of the resources that were not deleted then.

    `Page.position` is the position that was asked for.
    """
    given: dict[str, Any] = {name: value for name, value in filters.items() if value is not None}
    conditions = [table.filters[name] for name in given]
    if mine is not None:
        conditions.append(table.belongs)
        given["mine"] = mine
    return await where_page(pool, table, position, after, limit, " AND ".join(conditions) or "true", given)


async def where_page(
    pool: Pool, table: Aggregates[Any, V], position: int, after: int, limit: int, where: str, params: Params
) -> Page[V]:
    """The same with `where`, a condition on the columns that lists filter by, as `pages.page`."""
    found = await fetch(
        pool,
        list_statement(table, where),
        {"at_position": position, "of_kind": table.kind, "after": after, "limit": limit + 1, **params},
        order="created",
        planned=False,
    )
    reached(found, position)
    kept, following = cut(found.rows, limit, "created")
    return Page([row["shown"] for row in kept], following, position)


def list_statement(table: Aggregates[Any, Any], where: str) -> str:
    """The query for a page of a list. Its parameters are those of `where_page`."""
    columns = "".join(f", v.{name}" for name in table.columns)
    return f"""SELECT shown, created FROM (
            SELECT h.project, h.id, h.created, v.shown{columns}
            FROM heads h CROSS JOIN LATERAL (
                SELECT * FROM {name_of(table)} v
                WHERE v.project = h.project AND v.id = h.id AND v.position <= %(at_position)s
                ORDER BY v.position DESC LIMIT 1
            ) v
            WHERE h.kind = %(of_kind)s AND h.created > 0 AND h.created <= %(at_position)s
            AND (h.gone IS NULL OR h.gone > %(at_position)s) AND NOT v.deleted
        ) r WHERE created > %(after)s AND ({where}) ORDER BY created LIMIT %(limit)s"""  # noqa: S608


#: Operations as they were, with their steps until then. `{where}` is filled in below.
_OPERATIONS = """
    SELECT h.created, v.state, coalesce(
        (SELECT json_agg(json_build_object('position', s.position, 'type', s.type, 'time', s.time) ORDER BY s.position)
         FROM past_operations s
         WHERE s.id = h.id AND s.position <= %(at_position)s AND s.step
         AND (s.origin IS NULL OR s.origin = h.project || '/' || h.kind || '/' || h.resource)), '[]') AS steps
    FROM operation_heads h CROSS JOIN LATERAL (
        SELECT p.state, p.status FROM past_operations p
        WHERE p.id = h.id AND p.position <= %(at_position)s AND p.state IS NOT NULL
        ORDER BY p.position DESC LIMIT 1
    ) v
    WHERE h.created <= %(at_position)s AND {where}
"""


async def operation(pool: Pool, id_: str, position: int, *, mine: Mine, begins: Begins = NEVER) -> OperationView | None:
    """An operation as its record was at a position; None if it was not accepted yet.

    `begins`: of these projects, only those accepted from a position on.
    """
    where = "h.id = %(id)s" if mine is None else "h.id = %(id)s AND h.owner = ANY(%(mine)s)"
    where += f" AND {since(begins, 'h.owner', 'h.created')}"
    found = await fetch(
        pool,
        _OPERATIONS.format(where=where),
        {"id": id_, "at_position": position, "mine": mine, **of_begins(begins)},
        order="created",
    )
    reached(found, position)
    return shown(found.row) if found.row is not None else None


async def operations(
    pool: Pool,
    filters: Mapping[str, str | None],
    position: int,
    before: int | None,
    limit: int,
    *,
    mine: Mine,
    begins: Begins = NEVER,
) -> tuple[list[OperationView], int | None, int]:
    """Operations as they were at a position, the newest first: the views, the key of the next page, the position.

    `begins`: as of `operation`.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    conditions = [f"{'v' if name == 'status' else 'h'}.{OPERATION_COLUMNS[name]} = %({name})s" for name in given]
    if given.get("status") in ("accepted", "running"):
        conditions.append("(h.ended IS NULL OR h.ended > %(at_position)s)")
    if before is not None:
        conditions.append("h.created < %(before)s")
    if mine is not None:
        conditions.append("h.owner = ANY(%(mine)s)")
    conditions.append(since(begins, "h.owner", "h.created"))
    where = " AND ".join(conditions) + " ORDER BY h.created DESC LIMIT %(limit)s"
    found = await fetch(
        pool,
        _OPERATIONS.format(where=where),
        {**given, "at_position": position, "before": before, "limit": limit + 1, "mine": mine, **of_begins(begins)},
        order="created DESC",
        planned=False,
    )
    reached(found, position)
    rows, following = cut(found.rows, limit, "created")
    return [shown(row) for row in rows], following, position


async def newest(pool: Pool) -> datetime | None:
    """The time of the last message that the past has; None if it has none."""
    found = await fetch(pool, "SELECT time FROM moments ORDER BY position DESC LIMIT 1", {})
    return found.row["time"] if found.row is not None else None


async def begins(pool: Pool, projects: Collection[str], position: int) -> dict[str, int]:
    """The positions at which the present projects of these ids were created. Those that do not exist are left out.

    An id may have belonged to another project before. The past has to be at `position`: raises NotReached.
    """
    name = name_of(PROJECTS)
    found = await fetch(
        pool,
        f"""SELECT v.id, min(v.position) AS begins FROM {name} v
            WHERE v.project = ANY(%(ids)s) AND v.id = v.project AND v.position > coalesce(
                (SELECT max(d.position) FROM {name} d WHERE d.project = v.project AND d.id = v.id AND d.deleted), 0)
            GROUP BY v.id""",  # noqa: S608
        {"ids": sorted(projects)},
        order="id",
    )
    reached(found, position)
    return {row["id"]: int(row["begins"]) for row in found.rows}


async def begun(pool: Pool, project: str) -> int:
    """The position up to which a project of this id belonged to others: its last row as a deleted project; else 0."""
    found = await fetch(
        pool,
        f"SELECT max(position) AS position FROM {name_of(PROJECTS)} WHERE id = %(id)s AND deleted",  # noqa: S608
        {"id": project},
    )
    return int(found.row["position"] or 0) if found.row is not None else 0


def then_of(row: Mapping[str, Any]) -> Then:
    return Then(row["shown"], row["deleted"], row["version"], row["position"])


def reached(found: Snapshot, position: int) -> None:
    if found.position < position:
        raise NotReached(f"the past is at position {found.position}, and not yet at {position}")
