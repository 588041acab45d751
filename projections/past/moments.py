"""The moments: the time of each position of the log, so that a time can be mapped to a position."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from projections import bulk
from projections.model import ReadModel, Session, Step

DDL = """
CREATE TABLE moments (
    position bigint PRIMARY KEY,
    time     timestamptz NOT NULL
);
CREATE INDEX ON moments (time);
"""
TABLE = bulk.Table.of(DDL, "moments", ("position",))


def fold(moments: dict[int, datetime], step: Step[Any]) -> None:
    """The time that an event says; for a malformed message, when the log stored it: it may say any time."""
    recorded = step.recorded
    moments[recorded.position] = recorded.stored_at if step.stray else recorded.moment


async def save(session: Session, _: Mapping[int, datetime], moments: Mapping[int, datetime]) -> None:
    """Add these rows."""
    await bulk.extend(session.conn, TABLE, list(moments.items()), many=session.many)


MOMENTS = ReadModel(name="moments", version=1, ddl=DDL, tables=("moments",), fold=fold, save=save, positioned=True)
