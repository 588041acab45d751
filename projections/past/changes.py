"""What changed in a range of the log: the resources with an event in it, and the first and the last of these events.

Most pages are full after a look at few events. If a range has many events of few resources, the rest of a page comes
from the heads: so the work grows with the number of resources, and not with that of the events.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from eventstore.log.envelope import Recorded, Ref
from projections.books import TABLES
from projections.database import Begins, Mine, Pool, Snapshot, fetch, of_begins, since
from projections.events import recorded
from projections.past.queries import Then, reached, then_of
from projections.past.versions import name_of

#: So many events of a resource are shown at most: the first ones, and the last ones.
FIRST, LAST = 3, 17
#: So many events are looked at for the resources of a page, first and then, before the heads are asked.
SCANS = (500, 4000)
_OF_HEAD = "e.id = h.id AND e.kind = h.kind AND e.project = h.project AND e.position > %(first)s"


@dataclass(frozen=True, slots=True)
class Changed:
    """A resource with at least one event in a range of the log. `position`: that of the first one, the key of a page.

    `before`, `after`: the resource at both ends of the range; None if it did not exist yet.
    """

    ref: Ref
    position: int
    before: Then | None
    after: Then | None


@dataclass(frozen=True, slots=True)
class Sample:
    """Some events of a resource in a range, in their order. `more`: the number of those in between."""

    events: list[Recorded]
    more: int


@dataclass(frozen=True, slots=True)
class Range:
    """The events after position `first` and until `last`: of a project, of a kind, of an id, of the projects `mine`.

    None stands for all. `begins`: of each of these projects, only events from a position on.
    """

    first: int
    last: int
    project: str | None = None
    kind: str | None = None
    id: str | None = None
    mine: Mine = None
    begins: Begins = field(default_factory=dict)

    @property
    def later(self) -> Begins:
        """The projects of which not all events after `first` are meant."""
        return {project: begin for project, begin in self.begins.items() if begin > self.first + 1}

    def seen(self, events: str) -> str:
        """That they are of the present project of their owner."""
        return since(self.later, f"{events}.owner", f"{events}.position")

    @property
    def conditions(self) -> str:
        """Of the events `e`, without the positions."""
        found = ["e.kind = ANY(%(kinds)s)", self.seen("e")]
        found += ["e.owner = %(project)s"] if self.project is not None else []
        found += ["e.id = %(id)s"] if self.id is not None else []
        found += ["e.owner = ANY(%(mine)s)"] if self.mine is not None else []
        return " AND ".join(found)

    @property
    def of_heads(self) -> str:
        """Of the heads `h` that such events can have."""
        found = ["h.kind = ANY(%(kinds)s) AND h.created > 0"]  # (as the indexes of heads)
        found += ["h.project IN (%(project)s, 'system')"] if self.project is not None else []
        found += ["h.id = %(id)s"] if self.id is not None else []
        found += ["(h.project = ANY(%(mine)s) OR h.project = 'system')"] if self.mine is not None else []
        return " AND ".join(found)

    @property
    def values(self) -> dict[str, Any]:
        kinds = sorted(TABLES) if self.kind is None else [self.kind]
        return {
            **{"first": self.first, "last": self.last, "kinds": kinds},
            **{"project": self.project, "id": self.id, "mine": self.mine},
            **of_begins(self.later),
        }


async def changed(pool: Pool, within: Range, after: int, limit: int) -> list[Changed]:
    """Resources with an event in a range, in the order of their first one there.

    `after`: the position of the last item of the page before, or 0. A page has up to `limit` items. Raises NotReached,
    ReadModelsUnavailable.
    """
    firsts: dict[Ref, int] = {}
    key, last = max(within.first, after), within.last
    for events in SCANS if within.id is None else ():
        found = await _scan(pool, within, key, limit - len(firsts), events)
        firsts |= _firsts(found)
        looked = found.row["looked"] if found.row is not None else 0
        key = last if looked < events else found.rows[0]["upto"]
        if len(firsts) >= limit or key >= last:
            break
    if len(firsts) < limit and key < last:
        firsts |= _firsts(await _of_heads(pool, within, key, limit - len(firsts)))
    before, then = await _many(pool, firsts, within.first), await _many(pool, firsts, last)
    return [Changed(ref, position, before.get(ref), then.get(ref)) for ref, position in firsts.items()]


async def _scan(pool: Pool, within: Range, key: int, limit: int, events: int) -> Snapshot:
    """The resources whose first event is one of the next so many after a position.

    `looked`: how many there are; `upto`: the position of the last one.
    """
    found = await fetch(
        pool,
        f"""WITH looked AS MATERIALIZED (
                SELECT e.position, e.project, e.kind, e.id FROM events e
                WHERE e.position > %(key)s AND e.position <= %(last)s AND {within.conditions}
                ORDER BY e.position LIMIT %(events)s)
            SELECT w.looked, w.upto, f.* FROM (SELECT count(*) AS looked, max(position) AS upto FROM looked) w
            LEFT JOIN LATERAL (
                SELECT e.position, e.project, e.kind, e.id FROM looked e
                WHERE NOT EXISTS (SELECT 1 FROM events x WHERE x.id = e.id AND x.position > %(first)s
                                  AND x.position < e.position AND x.kind = e.kind AND x.project = e.project
                                  AND {within.seen("x")})
                ORDER BY e.position LIMIT %(limit)s) f ON true""",  # noqa: S608  (conditions are constants)
        {**within.values, "key": key, "events": events, "limit": limit},
        order="position",
        planned=False,
    )
    reached(found, within.last)
    return found


async def _of_heads(pool: Pool, within: Range, key: int, limit: int) -> Snapshot:
    """The resources whose first event in the range is after a position.

    One that began after `floor` has its first event there, in the order of the heads. Of each other one, the first
    event in the range is looked up.
    """
    found = await fetch(
        pool,
        f"""(SELECT h.project, h.kind, h.id, f.position FROM heads h JOIN events e ON e.position = h.created
             CROSS JOIN LATERAL (SELECT e.position FROM events e WHERE {_OF_HEAD} ORDER BY e.position LIMIT 1) f
             WHERE h.created > greatest(%(key)s, %(floor)s) AND h.created <= %(last)s AND {within.of_heads}
             AND {within.conditions} AND f.position > %(key)s
             ORDER BY h.created LIMIT %(limit)s)
            UNION ALL
            (SELECT h.project, h.kind, h.id, e.position FROM heads h CROSS JOIN LATERAL (
                 SELECT e.position, e.owner, e.kind, e.id FROM events e
                 WHERE {_OF_HEAD} AND e.position <= %(last)s AND {within.seen("e")}
                 ORDER BY e.position LIMIT 1) e
             WHERE h.created <= %(floor)s AND h.position > %(key)s AND {within.of_heads}
             AND {within.conditions} AND e.position > %(key)s
             ORDER BY e.position LIMIT %(limit)s)
            ORDER BY position LIMIT %(limit)s""",  # noqa: S608
        {
            **within.values,
            **{"key": key, "limit": limit},
            "floor": max([within.first, *within.later.values()]),
        },
        order="position",
        planned=False,
    )
    reached(found, within.last)
    return found


def _firsts(found: Snapshot) -> dict[Ref, int]:
    rows = [row for row in found.rows if row["position"] is not None]
    return {Ref(row["project"], row["kind"], row["id"]): int(row["position"]) for row in rows}


async def _many(pool: Pool, refs: Iterable[Ref], position: int) -> dict[Ref, Then]:
    """These resources as they were at a position, as far as they existed."""
    by_kind: dict[str, list[Ref]] = {}
    for ref in refs:
        by_kind.setdefault(ref.kind, []).append(ref)
    then: dict[Ref, Then] = {}
    for kind, some in by_kind.items():
        found = await fetch(
            pool,
            f"""SELECT v.* FROM unnest(%(projects)s::text[], %(ids)s::text[]) AS asked (project, id)
                CROSS JOIN LATERAL (
                    SELECT project, id, shown, deleted, version, position FROM {name_of(TABLES[kind])} t
                    WHERE t.project = asked.project AND t.id = asked.id AND t.position <= %(at)s
                    ORDER BY t.position DESC LIMIT 1
                ) v""",  # noqa: S608
            {"projects": [ref.project for ref in some], "ids": [ref.id for ref in some], "at": position},
        )
        then.update({Ref(row["project"], kind, row["id"]): then_of(row) for row in found.rows})
    return then


async def samples(pool: Pool, items: Iterable[Changed], within: Range) -> dict[Ref, Sample]:
    """The events of resources from their first one in a range on. Raises ReadModelsUnavailable.

    Each event of a resource has the next version, so the versions at both ends tell how many there are. They are
    counted where this is not so: only some are meant (`begins`), or the resource has no version yet.
    """
    asked = list(items)
    totals = [None if within.later else _total(each) for each in asked]
    found = await fetch(
        pool,
        """SELECT asked.number, n.total, e.position, e.subject, e.headers, e.body, e.stored_at
           FROM unnest(%(projects)s::text[], %(kinds)s::text[], %(ids)s::text[], %(firsts)s::bigint[],
                       %(totals)s::bigint[])
               WITH ORDINALITY AS asked (project, kind, id, first, total, number)
           CROSS JOIN LATERAL (
               SELECT coalesce(asked.total, (
                   SELECT count(*) FROM events x WHERE x.id = asked.id AND x.kind = asked.kind
                   AND x.project = asked.project AND x.position >= asked.first AND x.position <= %(last)s)) AS total
           ) n CROSS JOIN LATERAL (
               (SELECT x.position FROM events x WHERE x.id = asked.id AND x.kind = asked.kind
                AND x.project = asked.project AND x.position >= asked.first AND x.position <= %(last)s
                ORDER BY x.position LIMIT %(head)s)
               UNION
               (SELECT x.position FROM events x WHERE x.id = asked.id AND x.kind = asked.kind
                AND x.project = asked.project AND x.position >= asked.first AND x.position <= %(last)s
                ORDER BY x.position DESC LIMIT %(tail)s)
           ) p JOIN events e ON e.position = p.position""",
        {
            "projects": [each.ref.project for each in asked],
            "kinds": [each.ref.kind for each in asked],
            "ids": [each.ref.id for each in asked],
            "firsts": [each.position for each in asked],
            **{"totals": totals, "last": within.last, "head": FIRST, "tail": LAST},
        },
        order="position",
        planned=False,
    )
    shown: dict[Ref, list[Recorded]] = {}
    counts: dict[Ref, int] = {}
    for row in found.rows:
        ref = asked[row["number"] - 1].ref
        shown.setdefault(ref, []).append(recorded(row))
        counts[ref] = row["total"]
    return {ref: Sample(events, max(0, counts[ref] - len(events))) for ref, events in shown.items()}


def _total(changed: Changed) -> int | None:
    """The number of its events in the range; None if versions do not tell it."""
    if changed.after is None:
        return None
    return changed.after.version - (changed.before.version if changed.before is not None else 0)
