"""The reply of handlers to a command that they accepted, checked and shown as an operation and a resource.

The sender may have another version, or be somebody else. So the reply has to be a record of an operation and a state of
the resource; both are shown as rows of the read models are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from domain.contract import CommandReply, Json
from domain.operation import Operation
from projections import operation_rows
from projections.books import TABLES
from projections.operation_rows import OperationView, ProblemView
from runtime.bus.replies import Nonsense

#: How each kind of resource is shown.
VIEWS: Mapping[str, Any] = {kind: get_type_hints(table.view)["return"] for kind, table in TABLES.items()}


@dataclass(frozen=True, slots=True)
class Accepted:
    """A command that was accepted: where its events end, and what it led to."""

    position: int
    replayed: bool
    operation: OperationView
    resource: Mapping[str, Any]


_REPLIES = {kind: TypeAdapter(CommandReply[Operation, table.of.state]) for kind, table in TABLES.items()}  # type: ignore[name-defined]
_PROBLEM = TypeAdapter(ProblemView)


def read(kind: str, said: Mapping[str, Json]) -> Accepted:
    """What a reply says of a command on a resource of this kind. Raises Nonsense."""
    try:
        reply = _REPLIES[kind].validate_python(said)
        if reply.operation is None:
            raise ValueError("it is no operation")
        if reply.operation.record.problem is not None:
            _PROBLEM.validate_python(reply.operation.record.problem)
        operation = operation_rows.view(reply.operation.record, reply.operation.steps)
        shown = TABLES[kind].view(reply.state, reply.version, reply.position)
        return Accepted(reply.position, reply.replayed, operation, shown)
    except Exception as error:  # any error of a view that gets unexpected values
        raise Nonsense(f"{type(error).__name__} in what they accepted") from error
