"""The reply of handlers to a command that they accepted, checked and shown as an operation and a resource.

The sender may have another version, or be somebody else. So the reply has to be a record of an operation and a state of
the resource; both are shown as rows of the read models are.
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
from runtime.bus.replies import InvalidReply, Refusal

#: The view of each kind of resource.
VIEWS: Mapping[str, Any] = {kind: get_type_hints(table.view)["return"] for kind, table in TABLES.items()}

R = TypeVar("R")
Reply = CommandReply[Operation, Any]


class _Answer(TypedDict, Generic[R]):
    """An answer on the bus that is not a refusal, in the form that `replies.read` accepts."""

    ok: R
    problem: NotRequired[None]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The operation and the resource of an accepted command, as the API shows them."""

    operation: OperationView
    resource: Mapping[str, Any]


_ANSWERS: Mapping[str, TypeAdapter[_Answer[Reply]]] = {
    kind: TypeAdapter(_Answer[CommandReply[Operation, table.of.state]])  # type: ignore[name-defined]
    for kind, table in TABLES.items()
}
_PROBLEM = TypeAdapter(ProblemView)


def read(kind: str, body: bytes) -> Reply | Refusal:
    """Read the reply to a command on a resource of this kind. Raises InvalidReply.

    The bytes are parsed into a reply in one step, without a dictionary in between: every command waits for this.
    """
    try:
        return _ANSWERS[kind].validate_json(body)["ok"]
    except Exception as error:  # a ValidationError, or any error of a validator that gets unexpected values
        answer = replies.read(body)
        if isinstance(answer, Refusal):
            return answer
        raise invalid(error) from error


def shown(kind: str, reply: Reply) -> Accepted:
    """The operation and the resource of a reply. Raises InvalidReply."""
    try:
        if reply.operation is None:
            raise ValueError("it contains no operation")
        if reply.operation.record.problem is not None:
            _PROBLEM.validate_python(reply.operation.record.problem)
        operation = operation_rows.view(reply.operation.record, reply.operation.steps)
        return Accepted(operation, TABLES[kind].view(reply.state, reply.version, reply.position))
    except Exception as error:  # any error of a view that gets unexpected values
        raise invalid(error) from error


def invalid(error: Exception) -> InvalidReply:
    return InvalidReply(f"{type(error).__name__} in the reply to an accepted command")
