"""Operations: the record of each accepted command and its result, kept for ever.

    accepted ──first later event──► running ──► succeeded | failed | timed_out | cancelled

The record of an operation is folded, by `evolve`, from the events of its own resource alone. So a read model that
follows the log and handlers that load the resource's history get the same record. Each kind and verb defines which
events open, fulfil, fail and cancel its operations.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import AwareDatetime
from pydantic.dataclasses import dataclass as state

from domain.base import LENIENT, Event, Message, ReferenceChecked, optional, replace
from domain.contract import Json
from domain.kind import CancelReason, Kind, Outcome, Step
from domain.kinds import KINDS
from domain.verb import Verb
from domain.vm import Notice


class Status(StrEnum):
    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


ENDED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT, Status.CANCELLED})


class Progress(Message):
    """The progress of an operation. The total is not always known."""

    bytes_done: int
    bytes_total: int | None = None


@state(frozen=True, kw_only=True, config=LENIENT)
class Operation:
    """The record of an operation. `first`, `position`: the positions of its first and its latest event."""

    id: str
    verb: str
    kind: str
    resource: str
    project: str
    status: Status
    actor: str
    request_id: str | None = None
    accepted_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    deadline: AwareDatetime | None = None
    first: int
    position: int
    problem: dict[str, Json] | None = None
    progress: Progress | None = None
    notices: tuple[Notice, ...] = ()


_NEW = Operation(
    id="",
    verb="",
    kind="",
    resource="",
    project="",
    status=Status.ACCEPTED,
    actor="",
    accepted_at=datetime.min.replace(tzinfo=UTC),
    first=0,
    position=0,
)
"""Template of a new operation: a copy of it is much faster than validating all fields."""


class EventContext(NamedTuple):
    """What is known of an event besides its body: its aggregate, position, time, actor and operation."""

    operation: str | None
    project: str
    kind: str
    resource: str
    position: int
    at: datetime
    actor: str
    request: str | None


_VERBS = [(kind, verb) for kind in KINDS.values() for verb in kind.verbs]
OPENED: Mapping[type[Event], Verb[Any]] = {event: verb for _, verb in _VERBS for event in verb.accepted_by}
"""For each event that opens an operation: the verb of the operation."""
FULFILS: Mapping[type[Event], frozenset[str]] = {
    event: frozenset(verb.name for _, verb in _VERBS if event in verb.fulfilled_by)
    for _, opened in _VERBS
    for event in opened.fulfilled_by
}
"""For each event: the verbs whose operations it fulfils. For example `VmStarted` does not fulfil a stop."""
KIND_OF: Mapping[type[Event], Kind[Any, Any]] = {event: kind for kind in KINDS.values() for event in kind.all_events}
"""The kind of resource that an event belongs to."""


def evolve(operation: Operation | None, id_: str, event: Event, context: EventContext) -> Operation | None:
    """The operation with this id after an event of its resource."""
    if context.operation == id_:
        return transition(operation, id_, event, context)
    return operation and cancel(operation, event, context)


def concerns(operation: Operation, context: EventContext) -> bool:
    """Whether an event belongs to the operation's own resource."""
    own = (operation.project, operation.kind, operation.resource)
    return own == (context.project, context.kind, context.resource)


def transition(operation: Operation | None, id_: str, event: Event, context: EventContext) -> Operation | None:
    """The operation after an event that has its id. The status of an operation that has ended never changes.

    Events of the same command on other aggregates do not change it.
    """
    if operation is None:
        return new_operation(id_, event, context)
    if not concerns(operation, context):
        return operation
    operation = replace(operation, position=context.position)
    if operation.status in ENDED:
        return operation
    step = step_of(event)
    if step.done is not None:
        operation = replace(operation, progress=Progress(bytes_done=step.done, bytes_total=step.total))
    if operation.verb in FULFILS.get(type(event), ()):
        return end(operation, Status.SUCCEEDED, context.at)
    return advance(operation, step, context.at)


def step_of(event: Event) -> Step:
    if isinstance(event, ReferenceChecked):
        return Step(Outcome.SAME)
    kind = KIND_OF.get(type(event))
    return kind.step(event) if kind is not None else Step()


def advance(operation: Operation, step: Step, at: datetime) -> Operation:
    match step.outcome:
        case Outcome.SAME:
            return operation
        case Outcome.RUNNING if step.deadline is not None:
            return replace(operation, status=Status.RUNNING, deadline=step.deadline)
        case Outcome.RUNNING:
            return replace(operation, status=Status.RUNNING)
        case Outcome.FAILED:
            return end(operation, Status.FAILED, at, problem(step.code, step.detail, step.field))
        case Outcome.TIMED_OUT:
            timeout = problem("operation_timed_out", f"{operation.verb} did not finish in time")
            return end(operation, Status.TIMED_OUT, at, timeout)


def new_operation(id_: str, event: Event, context: EventContext) -> Operation | None:
    """A new operation, if this event opens one."""
    verb = OPENED.get(type(event))
    if verb is None:
        return None
    return replace(
        _NEW,
        id=id_,
        verb=verb.name,
        kind=context.kind,
        resource=context.resource,
        project=context.project,
        status=Status.ACCEPTED if verb.lasting else Status.SUCCEEDED,
        actor=context.actor,
        request_id=context.request,
        accepted_at=context.at,
        ended_at=None if verb.lasting else context.at,
        deadline=optional(event, "deadline") if verb.lasting else None,
        first=context.position,
        position=context.position,
        notices=optional(event, "notices", ()),
    )


def overtaken(event: Event, before: object) -> str | None:
    """The id of the operation that an event may cancel, given the state before the event."""
    kind = KIND_OF.get(type(event))
    return kind.overtakes(event, before) if kind is not None else None


def cancel(operation: Operation, event: Event, context: EventContext) -> Operation:
    """The operation after an event that does not have its id. It is cancelled if the event overtakes or abandons it."""
    kind = KIND_OF.get(type(event))
    if kind is None or operation.status in ENDED or not concerns(operation, context):
        return operation
    reason = kind.cancels(event, operation.id, operation.verb)
    if reason is None:
        return operation
    how = "gave it up" if reason is CancelReason.ABANDONED else "overtook it"
    return end(operation, Status.CANCELLED, context.at, problem(reason, f"operation {context.operation} {how}"))


def end(operation: Operation, status: Status, at: datetime, problem: dict[str, Json] | None = None) -> Operation:
    return replace(operation, status=status, ended_at=at, problem=problem)


def problem(code: str, detail: str, field: str | None = None) -> dict[str, Json]:
    """A problem document (RFC 9457) for an operation that failed after it was accepted."""
    document: dict[str, Json] = {
        "type": f"urn:nebula:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "code": str(code),
        "detail": detail,
    }
    if field is not None:
        document["errors"] = [{"field": field, "detail": detail}]
    return document
