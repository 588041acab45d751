"""What handlers say of a command that they accepted, read totally: an operation and a resource, as the API shows them.

Whoever answers may be of another version, or somebody else. So what came is rendered, and then held to the very types
that `openapi.json` describes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from domain.contract import CommandReply
from projections import operation_rows
from projections.books import TABLES
from projections.images import ImageView
from projections.nodes import NodeView
from projections.operation_rows import OperationView
from projections.projects import NamedView, ProjectView
from projections.vms import VmView
from runtime.replies import Nonsense

#: How each kind of resource is shown.
VIEWS: Mapping[str, Any] = {
    "project": ProjectView,
    "tag": NamedView,
    "image": ImageView,
    "node": NodeView,
    "vm": VmView,
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """A command that was accepted: where its events end, and what it led to."""

    position: int
    replayed: bool
    operation: OperationView
    resource: Mapping[str, Any]


_REPLY = TypeAdapter(CommandReply[dict[str, Any], dict[str, Any]])
_OPERATION = TypeAdapter(OperationView)
_RESOURCES = {kind: TypeAdapter[Mapping[str, Any]](view) for kind, view in VIEWS.items()}


def read(kind: str, said: Mapping[str, Any]) -> Accepted:
    """What a reply says of a command on a resource of this kind. Raises Nonsense."""
    try:
        reply = _REPLY.validate_python(said)
        if reply.operation is None:
            raise ValueError("it is no operation")
        told, position = reply.operation, reply.position
        operation = _OPERATION.validate_python(operation_rows.view(told.record, told.steps))
        shown = TABLES[kind].view(reply.state, reply.version, position)
        return Accepted(position, reply.replayed, operation, _RESOURCES[kind].validate_python(shown))
    except Exception as error:  # whatever a view makes of what anybody may have written
        raise Nonsense(f"{type(error).__name__} in what they accepted") from error
