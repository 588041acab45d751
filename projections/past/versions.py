"""The versions of aggregates: of each one a row after each of its events, with the API's JSON and the columns that
lists filter by.

A row holds from its `position` up to the next row of the same aggregate. It is never changed. So it does not matter how
messages are batched, and nothing of the past is written twice.
"""

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from eventstore.log.envelope import Ref
from projections import bulk
from projections.aggregates import Aggregates, cleaned
from projections.model import ReadModel, Row, Session, Step
from projections.storage import inside, unsearched

#: Raise it when the columns of these tables, or the meaning of a row, change.
FORMAT = 1

#: The types of columns whose values Postgres may compress or store outside of the row.
TEXTS = ("text", "text[]")

#: How a NUL character is written in JSON.
NUL = "\\u0000"

Key = tuple[Ref, int]
"""An aggregate, and the position of one of its events."""


def name_of(table: Aggregates[Any, Any]) -> str:
    """The table with the versions of the aggregates that `table` shows."""
    return f"past_{table.table}"


def read_model(table: Aggregates[Any, Any]) -> ReadModel[Key, Row[Any]]:
    """The read model with all versions of these aggregates. Its version follows from that of `table`."""
    name = name_of(table)
    columns = "".join(f"{column} {table.rows.types[column]}, " for column in table.columns)
    given = [column for column in table.columns if table.rows.types[column] in TEXTS]
    ddl = f"""
        CREATE TABLE {name} (
            project text NOT NULL, id text NOT NULL, position bigint NOT NULL, version int NOT NULL,
            deleted boolean NOT NULL, {columns}shown text NOT NULL,
            PRIMARY KEY (project, id, position)
        ) WITH (toast_tuple_target = 256);
        {inside(name, ("project", "id", *given, "shown"))}
        {unsearched(name, "shown")}
    """
    rows_of = bulk.Table.of(ddl, name, ("project", "id", "position"))

    async def save(session: Session, _: Mapping[Key, Row[Any]], rows: Mapping[Key, Row[Any]]) -> None:
        """Add these rows."""
        added = [values(table, ref, row) for (ref, _), row in rows.items()]
        await bulk.extend(session.conn, rows_of, added, many=session.many)

    return ReadModel(
        name=name,
        version=table.revision * 100 + FORMAT,
        ddl=ddl,
        tables=(name,),
        kinds=(table.kind,),
        fold=fold,
        save=save,
    )


def fold(rows: dict[Key, Row[Any]], step: Step[Any]) -> None:
    """Each event adds a row of its aggregate, if the aggregate has a state after it."""
    if step.row is not None and step.row.state is not None:
        rows[step.recorded.ref, step.recorded.position] = step.row


def values(table: Aggregates[Any, Any], ref: Ref, row: Row[Any]) -> bulk.Values:
    """A row of the table."""
    state = row.state
    return [
        *(ref.project, ref.id, row.position, row.version, table.of.deleted(state)),
        *(cleaned(read(state)) for read in table.columns.values()),
        shown(table, row),
    ]


def shown(table: Aggregates[Any, Any], row: Row[Any]) -> str:
    """The API's JSON. If it has NUL characters, they are replaced in the state first, as in the row of the present."""
    text = to_json(table.view(row.state, row.version, row.position)).decode()
    if NUL in text:
        text = to_json(table.render(row.state, row.version, row.position)).decode()
    return text
