"""How many events each block of positions has, by the project whose members may see them, and their times.

So marks of a long log, and searches by time, need not look at all its events. Blocks are as wide as the narrowest
range that consists of whole blocks (`marks.py`). A row is increased in the transaction that moves the checkpoint, so
each message counts once.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from projections.events import owner_of
from projections.marks import WIDTH
from projections.model import ReadModel, Session, Step

DDL = """
CREATE TABLE counts (
    block  bigint NOT NULL,
    owner  text NOT NULL,
    events bigint NOT NULL,
    first  bigint NOT NULL,
    least    timestamptz NOT NULL,
    greatest timestamptz NOT NULL,
    PRIMARY KEY (block, owner)
) WITH (fillfactor = 80);
CREATE INDEX ON counts (owner, block);
"""
"""`first`: the position of the first event. `least`, `greatest`: the first and the last time that one of them says."""

Key = tuple[int, str]
"""A block (the positions from `block * WIDTH + 1` on), and an owner."""


class Count(NamedTuple):
    """Events of a batch, in the order of the columns."""

    events: int
    first: int
    least: datetime
    greatest: datetime


def fold(counts: dict[Key, Count], step: Step[Any]) -> None:
    """Each message counts, malformed ones too: as it has a row in the index of events."""
    recorded, state = step.recorded, step.row.state if step.row is not None else None
    key = ((recorded.position - 1) // WIDTH, owner_of(recorded, state))
    before, time = counts.get(key), recorded.moment
    if before is None:
        counts[key] = Count(1, recorded.position, time, time)
    else:
        events, first, least, greatest = before
        counts[key] = Count(events + 1, first, min(least, time), max(greatest, time))


async def save(session: Session, _: Mapping[Key, Count], counts: Mapping[Key, Count]) -> None:
    """Add the counts of a batch to those of the batches before."""
    if not counts:
        return
    columns = list(zip(*((*key, *count) for key, count in counts.items()), strict=True))
    await session.conn.execute(
        """INSERT INTO counts AS c (block, owner, events, first, least, greatest)
           SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::timestamptz[],
                                %s::timestamptz[])
           ON CONFLICT (block, owner) DO UPDATE
           SET events = c.events + excluded.events, first = least(c.first, excluded.first),
               least = least(c.least, excluded.least), greatest = greatest(c.greatest, excluded.greatest)""",
        [list(column) for column in columns],
    )


COUNTS = ReadModel(name="counts", version=1, ddl=DDL, tables=("counts",), fold=fold, save=save)
