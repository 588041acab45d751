"""Keyset pages: which rows come next, in the order of their creation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic

from psycopg.rows import DictRow

from projections.aggregates import COLUMNS, Aggregates, V
from projections.database import Params, Pool, fetch

#: The most items that one page holds.
MOST = 500


@dataclass(frozen=True, slots=True)
class Page(Generic[V]):
    """One page of a list. `next` is the key to ask the next one with; None when this is the last."""

    items: list[V]
    next: int | None
    position: int


def cut(rows: list[DictRow], limit: int, key: str) -> tuple[list[DictRow], int | None]:
    """The first `limit` of rows that were asked with `limit + 1`, and the key of the last when there are more."""
    kept = rows[:limit]
    return kept, int(kept[-1][key]) if len(rows) > limit else None


async def page(pool: Pool, table: Aggregates[Any, V], after: int, limit: int, where: str, params: Params) -> Page[V]:
    """Aggregates that are not deleted and that `where` (a condition on the table's columns) lets through.

    Raises Away.
    """
    found = await fetch(
        pool,
        f"""SELECT {COLUMNS}, created FROM {table.table}
            WHERE NOT deleted AND created > %(after)s AND ({where}) ORDER BY created LIMIT %(limit)s""",  # noqa: S608
        {"after": after, "limit": limit + 1, **params},
        order="created",
    )
    rows, following = cut(found.rows, limit, "created")
    items = [table.shown(table.found(row)) for row in rows]
    return Page(items, following, found.position)


async def matching(
    pool: Pool, table: Aggregates[Any, V], filters: Mapping[str, str | None], after: int, limit: int
) -> Page[V]:
    """The same, where each filter that is not None has to match: the table says how (`Aggregates.filters`)."""
    asked = {name: value for name, value in filters.items() if value is not None}
    conditions = [table.filters[name] for name in asked]
    return await page(pool, table, after, limit, " AND ".join(conditions) or "true", asked)
