"""The events of resources in a range of the log: for each the first and the last ones, and how many there are."""

from collections.abc import Mapping
from dataclasses import dataclass

from eventstore.log.envelope import Recorded, Ref
from projections.database import Pool, fetch
from projections.events import recorded

#: So many events of a resource are shown at most: the first ones, and the last ones.
FIRST, LAST = 3, 17


@dataclass(frozen=True, slots=True)
class Sample:
    """Some events of a resource in a range, in their order. `more`: the number of those in between."""

    events: list[Recorded]
    more: int


async def samples(pool: Pool, firsts: Mapping[Ref, int], last: int) -> dict[Ref, Sample]:
    """The events of resources from their first one in a range until `last`. Raises ReadModelsUnavailable."""
    found = await fetch(
        pool,
        """SELECT asked.number, n.total, e.position, e.subject, e.headers, e.body, e.stored_at
           FROM unnest(%(projects)s::text[], %(kinds)s::text[], %(ids)s::text[], %(firsts)s::bigint[])
               WITH ORDINALITY AS asked (project, kind, id, first, number)
           CROSS JOIN LATERAL (
               SELECT x.position, row_number() OVER (ORDER BY x.position) AS place, count(*) OVER () AS total
               FROM events x WHERE x.id = asked.id AND x.kind = asked.kind AND x.project = asked.project
               AND x.position >= asked.first AND x.position <= %(last)s
           ) n JOIN events e ON e.position = n.position
           WHERE n.place <= %(head)s OR n.place > n.total - %(tail)s""",
        {
            "projects": [ref.project for ref in firsts],
            "kinds": [ref.kind for ref in firsts],
            "ids": [ref.id for ref in firsts],
            "firsts": list(firsts.values()),
            **{"last": last, "head": FIRST, "tail": LAST},
        },
        order="position",
        planned=False,
    )
    refs = list(firsts)
    shown: dict[Ref, list[Recorded]] = {}
    totals: dict[Ref, int] = {}
    for row in found.rows:
        ref = refs[row["number"] - 1]
        shown.setdefault(ref, []).append(recorded(row))
        totals[ref] = row["total"]
    return {ref: Sample(events, totals[ref] - len(events)) for ref, events in shown.items()}
