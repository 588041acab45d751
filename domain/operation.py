"""Operations: what became of everything that was asked for. Kept for ever.

    accepted ──first later event──► running ──► succeeded | failed | timed_out | cancelled

The record of an operation is folded from the events of its own resource alone: `after` says how each one moves it. So
it is the same whether a read model folds it as the log comes, or handlers fold it from the resource's history.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime

from domain import image, node, project, tag, vm
from domain.base import Event, Message, ReferenceChecked


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


class Operation(Message):
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
    notices: tuple[vm.Notice, ...] = ()


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


#: What opens an operation, by the verb it was asked with.
LASTING: Mapping[type[Event], str] = {
    vm.VmRequested: vm.Verb.CREATE,
    vm.VmStartRequested: vm.Verb.START,
    vm.VmStopRequested: vm.Verb.STOP,
    vm.VmRestartRequested: vm.Verb.RESTART,
    vm.VmPauseRequested: vm.Verb.PAUSE,
    vm.VmResumeRequested: vm.Verb.RESUME,
    vm.VmSuspendRequested: vm.Verb.SUSPEND,
    vm.VmDeletionRequested: vm.Verb.DELETE,
    vm.VmRebuildRequested: vm.Verb.REBUILD,
    vm.VmRestartedByPolicy: vm.Verb.START,
    vm.VmRetryRequested: vm.Verb.RETRY,
    vm.VmForgotten: vm.Verb.FORGET,
    image.ImageRegistered: image.RegisterImage.VERB,
}
#: The same for what is done as soon as it is accepted.
IMMEDIATE: Mapping[type[Event], str] = {
    vm.VmTagged: vm.Verb.TAG,
    vm.VmChanged: vm.Verb.CHANGE,
    vm.VmResized: vm.Verb.RESIZE,
    vm.VmAbandoned: vm.Verb.ABANDON,
    image.ImageDeleted: image.DeleteImage.VERB,
    node.NodeCordoned: node.CordonNode.VERB,
    node.NodeUncordoned: node.UncordonNode.VERB,
    node.SeedUrlSet: node.SetSeedUrl.VERB,
    node.NodeRetired: node.RetireNode.VERB,
    **{done: done.VERB for done in (*project.DONE, *tag.DONE)},
}
#: What fulfils an operation, by its verb. A stop is not fulfilled by a VM that came up.
FULFILS: Mapping[type[Event], tuple[str, ...]] = {
    vm.VmStarted: (vm.Verb.CREATE, vm.Verb.START, vm.Verb.RESTART, vm.Verb.REBUILD, vm.Verb.RETRY),
    vm.VmPaused: (vm.Verb.PAUSE,),
    vm.VmResumed: (vm.Verb.RESUME,),
    vm.VmSuspended: (vm.Verb.SUSPEND,),
    vm.VmStopped: (vm.Verb.STOP, vm.Verb.RETRY),
    vm.VmDeleted: (vm.Verb.DELETE, vm.Verb.RETRY, vm.Verb.FORGET),
    image.ImageVerified: (image.RegisterImage.VERB,),
}


def after(operation: Operation | None, id_: str, event: Event, happening: Happening) -> Operation | None:
    """The operation of an id after an event."""
    if happening.operation == id_:
        return transition(operation, id_, event, happening)
    if operation is not None and cancels(operation, event, happening):
        return cancelled(operation, event, happening)
    return operation


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
    operation = operation.model_copy(update={"position": happening.position})
    if operation.status in ENDED:
        return operation
    if isinstance(event, image.ImageVerified):
        whole = Progress(bytes_done=event.size_bytes, bytes_total=event.size_bytes)
        operation = operation.model_copy(update={"progress": whole})
    if operation.verb in FULFILS.get(type(event), ()):
        return ended(operation, Status.SUCCEEDED, happening.at)
    match event:
        case vm.VmFailed():
            return ended(operation, Status.FAILED, happening.at, problem(event.code, event.detail))
        case image.ImageProgressed():
            progress = Progress(bytes_done=event.bytes_done, bytes_total=event.bytes_total)
            moved = {"status": Status.RUNNING, "progress": progress, "deadline": event.deadline}
            return operation.model_copy(update=moved)
        case image.ImageRejected():
            refused = problem(event.code, event.detail, event.field)
            return ended(operation, Status.FAILED, happening.at, refused)
        case vm.VmOperationTimedOut():
            late = problem("operation_timed_out", f"{operation.verb} did not finish in time")
            return ended(operation, Status.TIMED_OUT, happening.at, late)
        case vm.VmUnschedulable() | ReferenceChecked():
            return operation
        case vm.VmScheduled():
            return operation.model_copy(update={"status": Status.RUNNING, "deadline": event.deadline})
        case _:
            return operation.model_copy(update={"status": Status.RUNNING})


def opened(id_: str, event: Event, happening: Happening) -> Operation | None:
    """A new operation, when this event opens one."""
    immediate = IMMEDIATE.get(type(event))
    verb = immediate or LASTING.get(type(event))
    if verb is None:
        return None
    return Operation(
        id=id_,
        verb=str(verb),
        kind=happening.kind,
        resource=happening.resource,
        project=happening.project,
        status=Status.SUCCEEDED if immediate else Status.ACCEPTED,
        actor=happening.actor,
        request_id=happening.request,
        accepted_at=happening.at,
        ended_at=happening.at if immediate else None,
        deadline=None if immediate else getattr(event, "deadline", None),
        first=happening.position,
        position=happening.position,
        notices=getattr(event, "notices", ()),
    )


def overtaken(event: Event, before: Any) -> str | None:
    """The operation that an event may cancel, given the state it happened to: to find its record."""
    match event:
        case vm.VmAsked():
            return event.cancels
        case image.ImageDeleted() if isinstance(before, image.Image):
            return before.registered_by
        case _:
            return None


def cancels(operation: Operation, event: Event, happening: Happening) -> bool:
    """Whether an event cancels an operation that has not ended. The registration of an image ends with its deletion."""
    match event:
        case vm.VmAsked():
            return event.cancels == operation.id and concerns(operation, happening)
        case image.ImageDeleted():
            return operation.verb == image.RegisterImage.VERB and concerns(operation, happening)
        case _:
            return False


def cancelled(operation: Operation, event: Event, by: Happening) -> Operation:
    """The operation after another one overtook it, or gave it up."""
    if operation.status in ENDED:
        return operation
    why = problem("operation_cancelled", f"operation {by.operation} overtook it")
    if isinstance(event, vm.VmAbandoned):
        why = problem("abandoned", f"operation {by.operation} gave it up")
    return ended(operation, Status.CANCELLED, by.at, why)


def ended(operation: Operation, status: Status, at: datetime, problem: dict[str, Any] | None = None) -> Operation:
    return operation.model_copy(update={"status": status, "ended_at": at, "problem": problem})


def problem(code: str, detail: str, field: str | None = None) -> dict[str, Any]:
    """A problem document (RFC 9457) for something that failed after it had been accepted."""
    document: dict[str, Any] = {
        "type": f"urn:nebula:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "code": code,
        "detail": detail,
    }
    if field is not None:
        document["errors"] = [{"field": field, "detail": detail}]
    return document
