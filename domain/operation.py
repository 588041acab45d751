"""Operations: what became of everything that was asked for. Kept for ever.

    accepted ──first later event──► running ──► succeeded | failed | timed_out | cancelled

The record of an operation is folded from the events of its own resource alone: `after` says how each one moves it. So
it is the same whether a read model folds it as the log comes, or handlers fold it from the resource's history. Which
events open an operation, move it, fulfil it or cancel it, each kind and each verb says itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime
from pydantic.dataclasses import dataclass as state

from domain.base import LENIENT, Event, Message, ReferenceChecked, optional, replace
from domain.kind import Cancelled, Kind, Outcome, Step
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
    """How far something is; how far it has to go is not always known."""

    bytes_done: int
    bytes_total: int | None = None


@state(frozen=True, kw_only=True, config=LENIENT)
class Operation:
    """One thing that was asked for, as its events tell it. `first` and `position` are where they begin and end."""

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
    problem: dict[str, Any] | None = None
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
"""What every operation begins with: a copy costs much less than validating its fields."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Where an event stands and of what aggregate it is, when it was decided, and by whom and for which operation."""

    operation: str | None
    project: str
    kind: str
    resource: str
    position: int
    at: datetime
    actor: str
    request: str | None


_VERBS = [(kind, verb) for kind in KINDS.values() for verb in kind.verbs]
OPENED: Mapping[type[Event], Verb[Any]] = {event: verb for _, verb in _VERBS for event in verb.opens}
"""The verb whose operation an event opens."""
FULFILS: Mapping[type[Event], frozenset[str]] = {
    event: frozenset(verb.name for _, verb in _VERBS if event in verb.fulfilled_by)
    for _, opened in _VERBS
    for event in opened.fulfilled_by
}
"""The verbs whose operations an event fulfils. A stop is not fulfilled by a VM that came up."""
KIND_OF: Mapping[type[Event], Kind[Any, Any]] = {event: kind for kind in KINDS.values() for event in kind.all_events}
"""The kind of resource that an event is of."""


def after(operation: Operation | None, id_: str, event: Event, happening: Happening) -> Operation | None:
    """The operation of an id after an event."""
    if happening.operation == id_:
        return transition(operation, id_, event, happening)
    return operation and cancelled(operation, event, happening)


def concerns(operation: Operation, happening: Happening) -> bool:
    """Whether an event is one of the operation's own resource."""
    own = (operation.project, operation.kind, operation.resource)
    return own == (happening.project, happening.kind, happening.resource)


def transition(operation: Operation | None, id_: str, event: Event, happening: Happening) -> Operation | None:
    """The operation after an event that carries its id. What has ended stays as it ended.

    What the same command changed on other aggregates is no step of it.
    """
    if operation is None:
        return opened(id_, event, happening)
    if not concerns(operation, happening):
        return operation
    operation = replace(operation, position=happening.position)
    if operation.status in ENDED:
        return operation
    step = step_of(event)
    if step.done is not None:
        operation = replace(operation, progress=Progress(bytes_done=step.done, bytes_total=step.total))
    if operation.verb in FULFILS.get(type(event), ()):
        return ended(operation, Status.SUCCEEDED, happening.at)
    return moved(operation, step, happening.at)


def step_of(event: Event) -> Step:
    if isinstance(event, ReferenceChecked):
        return Step(Outcome.SAME)
    kind = KIND_OF.get(type(event))
    return kind.step(event) if kind is not None else Step()


def moved(operation: Operation, step: Step, at: datetime) -> Operation:
    match step.outcome:
        case Outcome.SAME:
            return operation
        case Outcome.RUNNING if step.deadline is not None:
            return replace(operation, status=Status.RUNNING, deadline=step.deadline)
        case Outcome.RUNNING:
            return replace(operation, status=Status.RUNNING)
        case Outcome.FAILED:
            return ended(operation, Status.FAILED, at, problem(step.code, step.detail, step.field))
        case Outcome.TIMED_OUT:
            late = problem("operation_timed_out", f"{operation.verb} did not finish in time")
            return ended(operation, Status.TIMED_OUT, at, late)


def opened(id_: str, event: Event, happening: Happening) -> Operation | None:
    """A new operation, when this event opens one."""
    verb = OPENED.get(type(event))
    if verb is None:
        return None
    return replace(
        _NEW,
        id=id_,
        verb=verb.name,
        kind=happening.kind,
        resource=happening.resource,
        project=happening.project,
        status=Status.ACCEPTED if verb.lasting else Status.SUCCEEDED,
        actor=happening.actor,
        request_id=happening.request,
        accepted_at=happening.at,
        ended_at=None if verb.lasting else happening.at,
        deadline=optional(event, "deadline") if verb.lasting else None,
        first=happening.position,
        position=happening.position,
        notices=optional(event, "notices", ()),
    )


def overtaken(event: Event, before: Any) -> str | None:
    """The operation that an event may cancel, given the state it happened to: to find its record."""
    kind = KIND_OF.get(type(event))
    return kind.overtakes(event, before) if kind is not None else None


def cancelled(operation: Operation, event: Event, by: Happening) -> Operation:
    """The operation after another one overtook it, or gave it up, if it did."""
    kind = KIND_OF.get(type(event))
    if kind is None or operation.status in ENDED or not concerns(operation, by):
        return operation
    why = kind.cancels(event, operation.id, operation.verb)
    if why is None:
        return operation
    how = "gave it up" if why is Cancelled.GIVEN_UP else "overtook it"
    return ended(operation, Status.CANCELLED, by.at, problem(why, f"operation {by.operation} {how}"))


def ended(operation: Operation, status: Status, at: datetime, problem: dict[str, Any] | None = None) -> Operation:
    return replace(operation, status=status, ended_at=at, problem=problem)


def problem(code: str, detail: str, field: str | None = None) -> dict[str, Any]:
    """A problem document (RFC 9457) for something that failed after it had been accepted."""
    document: dict[str, Any] = {
        "type": f"urn:nebula:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "code": str(code),
        "detail": detail,
    }
    if field is not None:
        document["errors"] = [{"field": field, "detail": detail}]
    return document
