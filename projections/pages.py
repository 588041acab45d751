"""Keyset pages: the next rows after a key, in the order of their creation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from psycopg.rows import DictRow
from pydantic_core import from_json, to_json

from projections.aggregates import COLUMNS, Aggregates, V
from projections.database import Mine, OtherColumns, Params, Pool, Snapshot, fetch

#: The maximum number of items of one page.
MOST = 500


@dataclass(frozen=True, slots=True)
class Page(Generic[V]):
    """A page of a list. `texts`: the API's JSON of each item. `next`: the key of the next page; None for the last.

    `ids`: of the items; not of a page of the past.
    """

    texts: list[str]
    next: int | None
    position: int
    ids: list[str] = field(default_factory=list)

    @property
    def items(self) -> list[V]:
        return [from_json(text) for text in self.texts]


def cut(rows: list[DictRow], limit: int, key: str) -> tuple[list[DictRow], int | None]:
    """The first `limit` of rows that were queried with `limit + 1`, and the key of the last one if there are more."""
    kept = rows[:limit]
    return kept, int(kept[-1][key]) if len(rows) > limit else None


async def page(pool: Pool, table: Aggregates[Any, V], after: int, limit: int, where: str, params: Params) -> Page[V]:
    """Aggregates that are not deleted and match `where`, a condition on the table's columns.

    Raises ReadModelsUnavailable.
    """

    async def rows(columns: str) -> Snapshot:
        return await fetch(
            pool,
            f"""SELECT id, {columns}, created FROM {table.table}
                WHERE NOT deleted AND created > %(after)s AND ({where}) ORDER BY created LIMIT %(limit)s""",  # noqa: S608
            {"after": after, "limit": limit + 1, **params},
            order="created",
            planned=False,
        )

    try:
        found = await rows("shown")
        kept, following = cut(found.rows, limit, "created")
        texts = [row["shown"] for row in kept]
    except OtherColumns:  # read models of an earlier version
        found = await rows(COLUMNS)
        kept, following = cut(found.rows, limit, "created")
        texts = [to_json(table.shown(table.found(row))).decode() for row in kept]
    return Page(texts, following, found.position, [row["id"] for row in kept])


async def matching(
    pool: Pool, table: Aggregates[Any, V], filters: Mapping[str, str | None], after: int, limit: int, *, mine: Mine
) -> Page[V]:
    """The same with filters: every filter that is not None must match (`Aggregates.filters` has the conditions)."""
    given: dict[str, Any] = {name: value for name, value in filters.items() if value is not None}
    conditions = [table.filters[name] for name in given]
    if mine is not None:
        conditions.append(table.belongs)
        given["mine"] = mine
    return await page(pool, table, after, limit, " AND ".join(conditions) or "true", given)
