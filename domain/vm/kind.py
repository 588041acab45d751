"""VMs as a kind: one value of `Kind`."""

from typing import Any, assert_never, get_args

from domain.access import OPEN, PLATFORM, VM_CONSOLE, VM_READ
from domain.base import Event
from domain.kind import CancelReason, Id, Kind, Outcome, Scope, Step
from domain.references import NONE, Reference, tags
from domain.verb import ON_ACCEPTANCE, Effect, Verb
from domain.vm.commands import CloseConsole, OpenConsole, RecordGuestReady, VmCommands
from domain.vm.events import (
    OtherEvents,
    VmAddressesChanged,
    VmCleared,
    VmConsoleClosed,
    VmConsoleOpened,
    VmDeleted,
    VmFailed,
    VmGuestReady,
    VmGuestRebooted,
    VmLost,
    VmOperationAccepted,
    VmOperationTimedOut,
    VmPaused,
    VmPreparing,
    VmRestartedByPolicy,
    VmRestartScheduled,
    VmResumed,
    VmScheduled,
    VmStarted,
    VmStopped,
    VmSuspended,
    VmUnschedulable,
)
from domain.vm.evolution import evolve
from domain.vm.rules import decide
from domain.vm.state import Vm, images_of
from domain.vm.values import Phase
from domain.vm.verbs import VERBS
from domain.vm.verbs.abandon import VmAbandoned
from domain.vm.verbs.start import START

#: The platform's own verbs, which its processes use over the bus.
NOTES: tuple[Verb[Any], ...] = tuple(
    Verb(
        name=name,
        command=command,
        summary=summary,
        effect=Effect.NOTES,
        permission=permission,
        accepted_by=(),
        fulfilled_by=ON_ACCEPTANCE,
    )
    for name, command, permission, summary in (
        ("guest-ready", RecordGuestReady, PLATFORM, "A guest is ready: its cloud-init has finished"),
        ("open-console", OpenConsole, VM_CONSOLE, "A caller is about to be connected to a console"),
        # Its end is recorded also when it ended because the caller may not use it any more.
        ("close-console", CloseConsole, OPEN, "A connection to a console has ended"),
    )
)


def refers(vm: Vm) -> frozenset[Reference]:
    if vm.phase is Phase.DELETED:
        return NONE
    made_of = [Reference("project", vm.project), *(Reference("image", image) for image in images_of(vm))]
    if vm.flavor is not None:
        made_of.append(Reference("flavor", vm.flavor))
    return frozenset([*made_of, *tags(vm.tags)])


def may_differ(before: Vm, after: Vm) -> bool:
    same = images_of(before) == images_of(after) and before.tags is after.tags
    return not same or after.phase is Phase.DELETED


def step(event: Event) -> Step:
    """What an event makes of its operation. One that a verb has accepted is under way."""
    if not isinstance(event, OtherEvents):
        return Step()
    match event:
        case VmFailed():
            return Step(Outcome.FAILED, code=event.code, detail=event.detail)
        case VmOperationTimedOut():
            return Step(Outcome.TIMED_OUT)
        case VmUnschedulable():
            return Step(Outcome.SAME)
        case VmScheduled():
            return Step(deadline=event.deadline)
        case (
            VmPreparing()
            | VmStarted()
            | VmStopped()
            | VmRestartScheduled()
            | VmRestartedByPolicy()
            | VmPaused()
            | VmResumed()
            | VmSuspended()
            | VmGuestRebooted()
            | VmAddressesChanged()
            | VmGuestReady()
            | VmLost()
            | VmDeleted()
            | VmCleared()
            | VmConsoleOpened()
            | VmConsoleClosed()
        ):
            return Step()
        case _:
            assert_never(event)


def cancels(event: Event, operation: str, _: str) -> CancelReason | None:
    if not isinstance(event, VmOperationAccepted) or event.cancels != operation:
        return None
    return CancelReason.ABANDONED if isinstance(event, VmAbandoned) else CancelReason.OVERTAKEN


def overtakes(event: Event, _: Vm | None) -> str | None:
    return event.cancels if isinstance(event, VmOperationAccepted) else None


VM = Kind[Vm, VmCommands](
    name="vm",
    plural="vms",
    title="VM",
    scope=Scope.PROJECT,
    id=Id.UUID,
    readable_by=VM_READ,
    state=Vm,
    verbs=(*VERBS, *NOTES),
    events=tuple(event for event in get_args(OtherEvents) if event not in START.accepted_by),
    decide=decide,
    evolve=evolve,
    deleted=lambda vm: vm.phase is Phase.DELETED,
    refers=refers,
    may_differ=may_differ,
    step=step,
    cancels=cancels,
    overtakes=overtakes,
)
