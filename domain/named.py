"""What projects and tags share: an id that people choose and that never changes, and a name that may.

    CreateX ─► there ──DeleteX, unused as far as is known──► closing ──unused at that position──► deleted ──CreateX─►
                 ▲                                              │
                 └──────────used at that position───given up────┘

A deletion has two steps, because others refer to projects and tags: `…DeletionBegun` stands at a position of the log,
and who uses the aggregate at that position decides. What comes later finds it closing, and is refused.
"""

from datetime import datetime
from typing import ClassVar, Protocol, TypedDict, runtime_checkable

from pydantic import AwareDatetime
from pydantic.dataclasses import dataclass

from domain.base import LENIENT, Closing, Command, Event, Uuid, being_deleted
from domain.known import NONE, Known, Operations, same_request


class Asked(Command):
    VERB: ClassVar[str]
    operation: Uuid
    fingerprint: str


class Done(Event):
    """Something that was asked for, and is done. `VERB`: with which verb."""

    VERB: ClassVar[str]
    at: AwareDatetime
    operation: str
    fingerprint: str


class DeletionBegun(Event):
    """Nothing may refer to it from here on. `requested`: the operation that the deletion becomes, if it is finished."""

    at: AwareDatetime
    requested: str
    fingerprint: str


class DeletionGivenUp(Event):
    """It was in use where its deletion began: it may be used again, and nothing was deleted."""

    at: AwareDatetime
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Named:
    """A project or a tag as its events tell it. Tags carry neither tags, keys nor a description."""

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


class Stamp(TypedDict):
    """What every event says that does what was asked for."""

    at: datetime
    operation: str
    fingerprint: str


class Begun(TypedDict):
    """What the event says that begins a deletion."""

    at: datetime
    requested: str
    fingerprint: str


def stamp(command: Asked) -> Stamp:
    """What every event says that does what was asked for."""
    return {"at": command.at, "operation": command.operation, "fingerprint": command.fingerprint}


def begun(command: Asked) -> Begun:
    """What the event says that begins a deletion."""
    return {"at": command.at, "requested": command.operation, "fingerprint": command.fingerprint}


@runtime_checkable
class Closable(Protocol):
    """The state of what is deleted in two steps."""

    @property
    def id(self) -> str: ...
    @property
    def operations(self) -> Operations: ...
    @property
    def closing(self) -> Closing | None: ...


def asked_before(kind: str, state: Closable | None, command: Asked) -> bool:
    """Whether this very request was accepted already, or is a deletion that has begun. Raises Rejected.

    While a deletion is not decided, nothing else is taken.
    """
    if state is None:
        return False
    if same_request(state.operations.get(command.operation), command.VERB, command.fingerprint):
        return True
    if state.closing is None:
        return False
    if state.closing.operation != command.operation:
        raise being_deleted(kind, state.id)
    return same_request(Known(verb="delete", fingerprint=state.closing.fingerprint), command.VERB, command.fingerprint)


def remembered(state: Closable | None, event: Done) -> Operations:
    past = state.operations if state else NONE
    return past.insert(event.operation, Known(event.VERB, event.fingerprint))


def closing(event: DeletionBegun | DeletionGivenUp) -> Closing | None:
    """What a state says of a deletion that is not decided; None after it was given up."""
    if isinstance(event, DeletionGivenUp):
        return None
    return Closing(operation=event.requested, fingerprint=event.fingerprint, since=event.at)
