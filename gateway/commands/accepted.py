"""Checks the reply of handlers to an accepted command, and converts it to an operation and a resource.

The sender may have another version, or be somebody else. So the reply must contain a record of an operation and a state
of the resource. Both are shown in the same form as rows of the read models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, NotRequired, TypeVar, get_type_hints

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from domain.contract import CommandReply
from domain.operation import Operation
from projections import operation_rows
from projections.books import TABLES
from projections.operation_rows import OperationView, ProblemView
from runtime.bus import replies
from runtime.bus.replies import Nonsense, Refusal

#: The view of each kind of resource.
VIEWS: Mapping[str, Any] = {kind: get_type_hints(table.view)["return"] for kind, table in TABLES.items()}

R = TypeVar("R")
Reply = CommandReply[Operation, Any]


class _Answer(TypedDict, Generic[R]):
    """An answer on the bus that is no refusal, as `replies.read` would take it."""

    ok: R
    problem: NotRequired[None]


@dataclass(frozen=True, slots=True)
class Accepted:
    """How a command that was accepted is shown."""

    operation: OperationView
    resource: Mapping[str, Any]


_ANSWERS: Mapping[str, TypeAdapter[_Answer[Reply]]] = {
    kind: TypeAdapter(_Answer[CommandReply[Operation, table.of.state]])  # type: ignore[name-defined]
    for kind, table in TABLES.items()
}
_PROBLEM = TypeAdapter(ProblemView)


def read(kind: str, body: bytes) -> Reply | Refusal:
    """What handlers answer to a command on a resource of this kind. Raises Nonsense.

    Bytes become a reply in one step: every command waits for it, and with a dictionary in between it takes much longer.
    """
    try:
        return _ANSWERS[kind].validate_json(body)["ok"]
    except Exception as error:  # a ValidationError, or any error of a validator that gets unexpected values
        said = replies.read(body)
        if isinstance(said, Refusal):
            return said
        raise invalid(error) from error


def shown(kind: str, reply: Reply) -> Accepted:
    """The operation and the resource of a reply. Raises Nonsense."""
    try:
        if reply.operation is None:
            raise ValueError("it contains no operation")
        if reply.operation.record.problem is not None:
            _PROBLEM.validate_python(reply.operation.record.problem)
        operation = operation_rows.view(reply.operation.record, reply.operation.steps)
        return Accepted(operation, TABLES[kind].view(reply.state, reply.version, reply.position))
    except Exception as error:  # any error of a view that gets unexpected values
        raise invalid(error) from error


def invalid(error: Exception) -> Nonsense:
    return Nonsense(f"{type(error).__name__} in what they accepted")
