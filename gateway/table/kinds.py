"""The reads of a kind that has none of its own."""

from functools import partial
from typing import Any

from domain.kind import Kind, Scope
from gateway.commands.accepted import VIEWS
from gateway.commands.actions import collection, item
from gateway.reads import reads
from gateway.reads.read import Read
from gateway.table.parameters import PAGED, PAST
from projections.books import TABLES


def reads_of(kind: Kind[Any, Any]) -> tuple[Read, Read]:
    """The two reads of a kind: its list, and one resource."""
    table, view = TABLES[kind.name], VIEWS[kind.name]
    inside = kind.scope is Scope.PROJECT  # the project is then in the path
    filters = [name for name in table.filters if not (inside and name == "project")]
    listed, of_kind = partial(reads.all_of, kind=kind.name), partial(reads.one, kind=kind.name)
    title = f"{kind.titles[0].upper()}{kind.titles[1:]}"
    return (
        Read(collection(kind), kind.readable_by, listed, title, (*filters, *PAGED), view, listed=True),
        Read(item(kind), kind.readable_by, of_kind, f"A {kind.title}", PAST, view),
    )
