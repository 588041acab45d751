"""A command on the bus: what is asked, by whom, and what is said once it was accepted.

A refusal is a problem document, as `runtime/bus/replies.py` reads and writes it. The arguments of each command are the
fields of its own type, in the file of its kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, StringConstraints
from typing_extensions import TypedDict

from domain.base import Actor, Uuid
from domain.contract.values import Position

Said = Annotated[str, StringConstraints(max_length=512)]
"""What a caller says of itself and its request: it stands in the headers of events as it is."""

if TYPE_CHECKING:
    Json = JsonValue
else:
    Json = Any  # JSON cannot say anything else, and judging it twice costs time
Args = dict[str, Json]
"""The arguments of a command as they come in JSON: its type judges them."""

R = TypeVar("R")
S = TypeVar("S")


class Caller(BaseModel):
    """Who asks. `operation` and `fingerprint` identify the request where a person asks.

    `key`: the id that follows from a person's key, in what creates a resource.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    actor: Actor
    credential: Said | None = None
    request: Said | None = None
    operation: Said | None = None
    fingerprint: str | None = None
    key: Uuid | None = None
    causation: Said | None = None
    traceparent: Said | None = None


class CommandRequest(BaseModel):
    """What is asked on the subject of a command, which names project, kind and verb."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    args: Args
    context: Caller

    def body(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self)


class OperationStep(TypedDict):
    """An event that carries the operation's id, of the operation's own resource."""

    position: int
    type: str
    time: str


@dataclass(frozen=True, slots=True)
class OperationReply(Generic[R]):
    """An operation by its record, and its steps in the order of the log."""

    record: R
    steps: Sequence[OperationStep]


@dataclass(frozen=True, slots=True)
class CommandReply(Generic[R, S]):
    """What a command led to, under `ok`: where its events end, its operation, and the state of its resource.

    `replayed`: it had been accepted before. `operation` is None where the command is no operation.
    """

    position: Position
    version: Position
    replayed: bool
    operation: OperationReply[R] | None
    state: S

    def said(self) -> dict[str, object]:
        """As it is written: half the time that a dataclass takes to become JSON."""
        told = self.operation
        return {
            "position": self.position,
            "version": self.version,
            "replayed": self.replayed,
            "operation": {"record": told.record, "steps": told.steps} if told is not None else None,
            "state": self.state,
        }
