"""How many events there are in ranges of positions, from the index of events."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from projections.database import Mine, Pool, fetch, of_begins, since

#: The number of positions in a block of the past (`past/counts.py`), which counts them.
WIDTH = 1000
#: The maximum number of counts that are kept. Each needs about 200 bytes.
MOST_KEPT = 5000


class Mark(NamedTuple):
    """The events in one range. `number`: the range has the positions from `number * width + 1` on, `width` many.

    `first`: the position of the first event in it, and `time` when that was decided. `failures`: how many events say
    that something failed.
    """

    number: int
    events: int
    failures: int
    first: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Scope:
    """The events that are counted: those of a project, of a VM, and of the projects `mine`; None stands for all.

    `begins`: of these projects, only events from a position on.
    """

    project: str | None
    vm: str | None
    mine: tuple[str, ...] | None
    begins: tuple[tuple[str, int], ...] = ()

    @property
    def conditions(self) -> str:
        """Of the events, without the positions."""
        found = [since(dict(self.begins), "owner", "position"), *self.of_owners]
        if self.vm is not None:
            found.append("kind = 'vm' AND id = %(vm)s")
        return " AND ".join(found)

    @property
    def of_owners(self) -> list[str]:
        """The conditions on whose they are."""
        found = []
        if self.project is not None:
            found.append("owner = %(project)s")
        if self.mine is not None:
            found.append("owner = ANY(%(mine)s)")
        return found

    @property
    def values(self) -> Mapping[str, object]:
        mine: Mine = None if self.mine is None else list(self.mine)
        return {"project": self.project, "vm": self.vm, "mine": mine, **of_begins(dict(self.begins))}


@dataclass
class Kept:
    """Counts of ranges that are wholly in the past, by scope and width. A range without events is None."""

    _known: OrderedDict[tuple[Scope, int], dict[int, Mark | None]] = field(default_factory=OrderedDict)

    def of(self, scope: Scope, width: int) -> dict[int, Mark | None]:
        """The known ranges. What is added to it is kept."""
        found = self._known.setdefault((scope, width), {})
        self._known.move_to_end((scope, width))
        return found

    def trim(self) -> None:
        """Forget what was asked for the longest time ago."""
        count = sum(map(len, self._known.values()))
        while count > MOST_KEPT:
            _, forgotten = self._known.popitem(last=False)
            count -= len(forgotten)


@dataclass(frozen=True, slots=True)
class Counted:
    """Events from position `low` to `high` that are counted already: `ranges` has the number of each range, how many
    there are, and the position of the first one.
    """

    low: int
    high: int
    ranges: Sequence[tuple[int, int, int]] = ()


async def counted(pool: Pool, scope: Scope, first: int, last: int, width: int) -> Counted | None:
    """What the past has counted between two positions: the whole blocks of it. None if that does not help.

    `pool`: that of the past. Raises ReadModelsUnavailable.
    """
    if width % WIDTH or scope.vm is not None or scope.begins:
        return None
    lowest = -(-(first - 1) // WIDTH)
    found = await fetch(
        pool,
        f"""SELECT block * {WIDTH} / %(width)s AS number, sum(events)::bigint AS events, min(first) AS first
            FROM counts WHERE block >= %(lowest)s AND (block + 1) * {WIDTH} <= least(%(last)s, c.position)
            AND {" AND ".join(scope.of_owners) or "true"} GROUP BY 1""",  # noqa: S608
        {"width": width, "lowest": lowest, "last": last, **scope.values},
        order="number",
        planned=False,
    )
    high = min(last, found.position) // WIDTH * WIDTH
    ranges = [(row["number"], row["events"], row["first"]) for row in found.rows]
    return Counted(lowest * WIDTH + 1, high, ranges) if high > lowest * WIDTH else None


async def marks(
    pool: Pool, scope: Scope, first: int, last: int, width: int, failures: Sequence[str], known: Counted | None = None
) -> tuple[list[Mark], int]:
    """The ranges between two positions that have events, in their order; and the log position.

    `failures`: the types of events that say that something failed. `known`: what need not be counted. Raises
    ReadModelsUnavailable.
    """
    where = scope.conditions
    known = known or Counted(last + 1, last)
    found = await fetch(
        pool,
        f"""WITH parts AS (
                SELECT * FROM unnest(%(numbers)s::bigint[], %(counts)s::bigint[], %(firsts)s::bigint[])
                    AS k (number, events, first)
                UNION ALL SELECT (position - 1) / %(width)s, count(*), min(position)
                FROM events WHERE position BETWEEN %(first)s AND %(low)s AND {where} GROUP BY 1
                UNION ALL SELECT (position - 1) / %(width)s, count(*), min(position)
                FROM events WHERE position BETWEEN %(high)s AND %(last)s AND {where} GROUP BY 1),
            counted AS (
                SELECT number, sum(events)::bigint AS events, min(first) AS first FROM parts GROUP BY 1),
            failed AS (
                SELECT (position - 1) / %(width)s AS number, count(*) AS failures
                FROM events WHERE type = ANY(%(failures)s) AND position BETWEEN %(first)s AND %(last)s
                AND {where} GROUP BY 1)
            SELECT c.number, c.events, coalesce(f.failures, 0) AS failures, c.first, e.time
            FROM counted c JOIN events e ON e.position = c.first LEFT JOIN failed f ON f.number = c.number""",  # noqa: S608
        {
            **{"first": first, "last": last, "width": width, "failures": list(failures), **scope.values},
            **{"low": min(last, known.low - 1), "high": known.high + 1},
            "numbers": [number for number, _, _ in known.ranges],
            "counts": [events for _, events, _ in known.ranges],
            "firsts": [position for _, _, position in known.ranges],
        },
        order="number",
        planned=False,
    )
    rows = [Mark(row["number"], row["events"], row["failures"], row["first"], row["time"]) for row in found.rows]
    return rows, found.position


async def reached(pool: Pool) -> int:
    """The log position of the index. Raises ReadModelsUnavailable."""
    return (await fetch(pool, "SELECT true AS there", {})).position


async def position_at(pool: Pool, time: datetime, last: int) -> int:
    """About the last position, up to `last`, of an event that was decided at or before a time; 0 if there is none.

    Events are stored nearly in the order of their times: clocks of handlers may differ by milliseconds. Raises
    ReadModelsUnavailable.
    """
    low, high = 0, last
    while low < high:
        middle = (low + high + 1) // 2
        query = "SELECT position, time FROM events WHERE position >= %(middle)s ORDER BY position LIMIT 1"
        row = (await fetch(pool, query, {"middle": middle})).row
        if row is not None and row["time"] <= time:
            low = max(middle, min(int(row["position"]), high))
        else:
            high = middle - 1
    return low
