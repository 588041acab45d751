"""Records of operations, computed from the events of their resources in the log."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from domain.base import Event
from domain.contract import OperationStep
from domain.image import ImageDeleted
from domain.operation import EventContext, Operation, evolve
from eventstore.log.envelope import Recorded
from runtime.text.iso import iso_z

#: The event that cancels an operation without naming it.
DELETED = ImageDeleted.TOPIC


@dataclass(frozen=True, slots=True)
class Record:
    """An operation and its steps, in the order of the log."""

    operation: Operation
    steps: list[OperationStep]


def event_context(recorded: Recorded) -> EventContext:
    """The data of an event that the record of an operation needs."""
    at = recorded.moment
    return EventContext(recorded.operation, *recorded.ref, recorded.position, at, recorded.actor, recorded.request)


def record(id_: str, events: Iterable[tuple[Recorded, Event]]) -> Record | None:
    """The record of an operation, from events of its resource in their order; None if no event belongs to it."""
    operation: Operation | None = None
    steps: list[OperationStep] = []
    for recorded, event in events:
        context = event_context(recorded)
        operation = evolve(operation, id_, event, context)
        if operation is not None and context.operation == id_:
            steps.append({"position": context.position, "type": recorded.type, "time": written(context.at)})
    return Record(operation, steps) if operation is not None else None


def written(moment: datetime) -> str:
    """A time in UTC in the format of the API."""
    return iso_z(moment)


def recorded_in(history: Iterable[Recorded], id_: str) -> Record | None:
    """The record of an operation, from the whole history of its resource. Only events that may
    concern it are parsed.
    """
    name = id_.encode()
    related = (one for one in history if one.context.operation == id_ or name in one.body or one.type == DELETED)
    return record(id_, ((one, one.event) for one in related))
