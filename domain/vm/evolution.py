"""How each event changes the state of a VM. It never validates: every stored event is applied, whatever it says."""

from typing import assert_never

from domain.base import Event, replace
from domain.contract import Desired
from domain.vm.addresses import with_addresses, without_addresses
from domain.vm.boots import begun, ready, rebooted, same_run
from domain.vm.events import (
    OtherEvents,
    VmAddressesChanged,
    VmCleared,
    VmConsoleClosed,
    VmConsoleOpened,
    VmDeleted,
    VmEvent,
    VmFailed,
    VmGuestReady,
    VmGuestRebooted,
    VmLost,
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
from domain.vm.state import Vm, operations_after, with_new_boot, with_pending, with_phase
from domain.vm.values import AT_REST, SIZED, WAITING, Failure, Phase
from domain.vm.verb import AnyVerb, verb_named
from domain.vm.verbs import VERBS, delete, start, stop
from domain.vm.verbs.create import VmRequested, created

#: Maximum number of automatic restarts whose operations a VM keeps.
MOST_RESTARTS = 8
#: Maximum number of open console sessions that a VM keeps, and of ended ones.
MOST_CONSOLES = 256

_VERB_OF: dict[type[Event], AnyVerb] = {verb.event: verb for verb in VERBS}


def evolve(vm: Vm | None, event: Event) -> Vm | None:
    """The state after an event. Events of other types change nothing."""
    if isinstance(event, VmRequested):
        return created(event)
    if vm is None or not isinstance(event, VmEvent):
        return vm
    verb = _VERB_OF.get(type(event))
    if verb is not None:
        return replace(verb.evolve(vm, event), updated_at=event.at)
    if isinstance(event, VmConsoleOpened | VmConsoleClosed):
        return with_console(vm, event)  # a connection to a console does not change `updated_at`
    if isinstance(event, OtherEvents):
        return replace(changed(vm, event), updated_at=event.at)
    return replace(vm, updated_at=event.at)


def with_console(vm: Vm, event: VmConsoleOpened | VmConsoleClosed) -> Vm:
    """The VM with its open sessions after an event. Sessions of a killed gateway stay among the last MOST_CONSOLES."""
    if isinstance(event, VmConsoleOpened):
        return replace(vm, consoles=(*vm.consoles, event.session)[-MOST_CONSOLES:])
    others = tuple(session for session in vm.consoles if session != event.session)
    return replace(vm, consoles=others, consoles_ended=(*vm.consoles_ended, event.session)[-MOST_CONSOLES:])


def changed(vm: Vm, event: OtherEvents) -> Vm:
    match event:
        case VmUnschedulable():
            return replace(vm, phase=Phase.UNSCHEDULABLE, considered=event.considered)
        case VmScheduled():
            return scheduled(vm, event)
        case VmPreparing():
            preparing = replace(vm, phase=Phase.SCHEDULED, preparing=event.step)
            return replace(preparing, sequence=event.sequence, lease=event.lease)
        case VmStarted():
            return started(vm, event)
        case VmStopped():
            return stopped(vm, event)
        case VmRestartScheduled():
            return replace(vm, restart_at=event.due, restarts=event.attempt)
        case VmRestartedByPolicy():
            return restarted(vm, event)
        case VmPaused():
            return with_phase(vm, event, Phase.PAUSED)
        case VmResumed():
            return with_addresses(with_phase(vm, event, Phase.RUNNING), event, same_boot=True)
        case VmSuspended():
            return without_addresses(with_phase(vm, event, Phase.SUSPENDED))
        case VmAddressesChanged():
            return with_addresses(replace(vm, sequence=event.sequence, lease=event.lease), event, same_boot=False)
        case VmGuestRebooted():
            return rebooted(vm, event)
        case VmGuestReady():
            return ready(vm, event)
        case VmFailed():
            return failed(vm, event)
        case VmLost():
            return replace(vm, phase=Phase.LOST)
        case VmOperationTimedOut():
            return timed_out(vm, event)
        case VmDeleted():
            return without_addresses(replace(vm, phase=Phase.DELETED, pending=None, desired=Desired.ABSENT))
        case VmCleared():
            return replace(vm, cleared=True, sequence=event.sequence, lease=event.lease)
        case VmConsoleOpened() | VmConsoleClosed():
            return vm
        case _:
            assert_never(event)


def scheduled(vm: Vm, event: VmScheduled) -> Vm:
    return replace(
        vm,
        phase=Phase.SCHEDULED,
        node=event.node,
        epoch=event.epoch,
        considered=event.considered,
        mac=event.mac,
        pending=replace(vm.pending, deadline=event.deadline) if vm.pending else None,
    )


def started(vm: Vm, event: VmStarted) -> Vm:
    came_up = replace(
        begun(vm, event),
        phase=Phase.RUNNING,
        pending=None,
        preparing=None,
        failure=None,
        force_after=None,
        grace_seconds=None,
        running_size=event.size,
        started_at=event.at,
        disk_made=vm.disk if event.boots >= vm.boots else vm.disk_made,
        sequence=event.sequence,
        lease=event.lease,
    )
    return with_addresses(came_up, event, same_boot=same_run(vm, event))


def stopped(vm: Vm, event: VmStopped) -> Vm:
    return replace(
        without_addresses(vm),
        phase=Phase.STOPPED,
        desired=Desired.ABSENT if vm.desired is Desired.ABSENT else Desired.OFF,
        pending=None if event.operation else vm.pending,
        force_after=None,
        grace_seconds=None,
        running_size=None,
        ready=None,
        sequence=event.sequence,
        lease=event.lease,
    )


def restarted(vm: Vm, event: VmRestartedByPolicy) -> Vm:
    """Only the operations of the latest automatic restarts are kept: nobody repeats them, and there may be many."""
    latest = (*vm.restarted_by, event.operation)
    operations = operations_after(vm, event, start.NAME)
    for outdated in latest[:-MOST_RESTARTS]:
        operations = operations.discard(outdated)
    booting = with_new_boot(with_pending(vm, event, start.NAME))
    return replace(booting, operations=operations, restarted_by=latest[-MOST_RESTARTS:])


def failed(vm: Vm, event: VmFailed) -> Vm:
    """It gets the phase of the event. If it still has a domain, the size and the readiness of that stay."""
    sized = event.phase in SIZED
    return replace(
        without_addresses(vm) if event.phase is Phase.STOPPED else vm,
        phase=event.phase,
        desired=vm.desired if vm.desired is Desired.ABSENT else AT_REST[event.phase],
        pending=None,
        preparing=None,
        restart_at=None,
        failure=Failure(code=event.code, detail=event.detail, at=event.at, again=verb_to_retry(vm)),
        running_size=vm.running_size if sized else None,
        ready=vm.ready if sized else None,
        sequence=event.sequence or vm.sequence,
        lease=event.lease or vm.lease,
    )


def verb_to_retry(vm: Vm) -> str:
    """The verb that a retry repeats if the pending operation fails now: it leads to the desired state."""
    if vm.desired is Desired.ABSENT:
        return delete.NAME
    return stop.NAME if vm.pending is not None and vm.pending.verb == stop.NAME else start.NAME


def timed_out(vm: Vm, event: VmOperationTimedOut) -> Vm:
    """No operation is pending any more. A VM that was to start and did not is failed, and is desired to be off.

    A VM that was to be paused, suspended or resumed is from now on desired to be in its present phase.
    """
    verb = verb_named(event.verb)
    preparing = vm.phase in (*WAITING, Phase.SCHEDULED) and vm.desired is not Desired.ABSENT
    if preparing or (verb is not None and verb.starts and vm.phase is not Phase.RUNNING):
        detail = f"{event.verb} did not finish in time; start it to try again, or delete it"
        failure = Failure(code="timed_out", detail=detail, at=event.at)
        return replace(vm, pending=None, phase=Phase.FAILED, desired=Desired.OFF, failure=failure)
    if verb is not None and verb.harmless_goal is not None:
        return replace(vm, pending=None, desired=AT_REST.get(vm.phase, vm.desired))
    return replace(vm, pending=None)
