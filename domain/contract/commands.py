"""A command on the bus: the request, its caller, and the reply when it is accepted.

A refusal is a problem document, which `runtime/bus/replies.py` reads and writes. The arguments of a command are the
fields of its type, in the file of its kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints
from typing_extensions import TypedDict

from domain.access import Grant
from domain.base import Actor, Uuid
from domain.contract.values import Json, Position

HeaderText = Annotated[str, StringConstraints(max_length=512)]
"""Text from a caller that is copied to the headers of events."""

Args = dict[str, Json]
"""The arguments of a command as they come in JSON: its type judges them."""

R = TypeVar("R")
S = TypeVar("S")


class Caller(BaseModel):
    """Who gives a command, and the ids of the request.

    `operation`, `fingerprint`: identify a request that becomes an operation; a repeat has the same ones. `key`: the id
    that is derived from the caller's idempotency key, if the command creates a resource. `credential`: the id of a
    token; users and service accounts need one. `grants`, `read_only`: what other principals may do; the sender vouches
    for it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    actor: Actor
    credential: HeaderText | None = None
    grants: tuple[Grant, ...] = ()
    read_only: bool = False
    request: HeaderText | None = None
    operation: HeaderText | None = None
    fingerprint: str | None = None
    key: Uuid | None = None
    causation: HeaderText | None = None
    traceparent: HeaderText | None = None


class CommandRequest(BaseModel):
    """The body of a command. Its subject names project, kind and verb."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    args: Args
    context: Caller

    def body(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self)


class OperationStep(TypedDict):
    """An event of the operation's resource that has the operation's id."""

    position: int
    type: str
    time: str


@dataclass(frozen=True, slots=True)
class OperationReply(Generic[R]):
    """The record of an operation, and its steps in the order of the log."""

    record: R
    steps: Sequence[OperationStep]


@dataclass(frozen=True, slots=True)
class CommandReply(Generic[R, S]):
    """The result of an accepted command: the position and version of its last event, its operation, and the new state.

    `replayed`: the same request was accepted before. `operation` is None if the command does not start one.
    """

    position: Position
    version: Position
    replayed: bool
    operation: OperationReply[R] | None
    state: S

    def as_dict(self) -> dict[str, object]:
        """The content of the reply. A dict becomes JSON in half the time that a dataclass takes."""
        operation = self.operation
        return {
            "position": self.position,
            "version": self.version,
            "replayed": self.replayed,
            "operation": {"record": operation.record, "steps": operation.steps} if operation is not None else None,
            "state": self.state,
        }
