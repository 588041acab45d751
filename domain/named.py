"""What projects, tags and flavors share: an id that people choose and that never changes, and a name that can change.

    CreateX ─► usable ──DeleteX, no users known──► closing ──no users at that position──► deleted ──CreateX─► usable
                 ▲                                    │
                 └──────users at that position, given up

A deletion has two steps, because other aggregates refer to these. `…DeletionBegun` has a position in the log. If
anything refers to the aggregate at that position, the deletion is given up. Later commands that would refer to it see
that it is closing, and are refused.
"""

from datetime import datetime
from typing import ClassVar, Protocol, TypedDict

from pydantic import AwareDatetime
from pydantic.dataclasses import dataclass

from domain.accepted_requests import NONE, AcceptedRequest, Operations, same_request
from domain.base import LENIENT, Closing, Command, Event, Uuid, being_deleted


class OperationCommand(Command):
    """A command of a caller. When it is accepted, it becomes an operation. `VERB`: the name of its verb."""

    VERB: ClassVar[str]
    operation: Uuid
    fingerprint: str


class OperationDone(Event):
    """The command of a caller was accepted, and its operation is done. `VERB`: the name of its verb."""

    VERB: ClassVar[str]
    at: AwareDatetime
    operation: str
    fingerprint: str


class DeletionBegun(Event):
    """From now on nothing new may refer to it. `requested`: the operation that records the finished deletion."""

    at: AwareDatetime
    requested: str
    fingerprint: str


class DeletionGivenUp(Event):
    """It was in use when its deletion began. It was not deleted, and may be used again."""

    at: AwareDatetime
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Named:
    """The state of a project or a tag. A tag has no tags, SSH keys or description."""

    id: str
    name: str
    tags: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    description: str | None = None
    created_by: str | None = None
    deleted: bool = False
    closing: Closing | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    operations: Operations = NONE


class OperationFields(TypedDict):
    """The fields that each `OperationDone` takes from its command."""

    at: datetime
    operation: str
    fingerprint: str


class DeletionFields(TypedDict):
    """The fields that `DeletionBegun` takes from its command."""

    at: datetime
    requested: str
    fingerprint: str


def operation_fields(command: OperationCommand) -> OperationFields:
    return {"at": command.at, "operation": command.operation, "fingerprint": command.fingerprint}


def deletion_fields(command: OperationCommand) -> DeletionFields:
    return {"at": command.at, "requested": command.operation, "fingerprint": command.fingerprint}


class Closable(Protocol):
    """The state of an aggregate that is deleted in two steps."""

    @property
    def id(self) -> str: ...
    @property
    def operations(self) -> Operations: ...
    @property
    def closing(self) -> Closing | None: ...


def is_repeat(kind: str, state: Closable | None, command: OperationCommand) -> bool:
    """Whether this request was accepted before, or is the deletion that has begun.

    Raises Rejected for any other command while a deletion is not decided.
    """
    if state is None:
        return False
    if same_request(state.operations.get(command.operation), command.VERB, command.fingerprint):
        return True
    if state.closing is None:
        return False
    if state.closing.operation != command.operation:
        raise being_deleted(kind, state.id)
    return same_request(
        AcceptedRequest(verb="delete", fingerprint=state.closing.fingerprint), command.VERB, command.fingerprint
    )


def operations_after(state: Closable | None, event: OperationDone) -> Operations:
    past = state.operations if state else NONE
    return past.insert(event.operation, AcceptedRequest(event.VERB, event.fingerprint))


def closing_after(event: DeletionBegun | DeletionGivenUp) -> Closing | None:
    """The state's `closing` after a deletion has begun; None after it was given up."""
    if isinstance(event, DeletionGivenUp):
        return None
    return Closing(operation=event.requested, fingerprint=event.fingerprint, since=event.at)
