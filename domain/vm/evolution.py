"""What each event makes of a VM. It never judges: what was ever stored is folded, whatever the rules are today."""

from typing import assert_never

from domain.base import Event, replace
from domain.contract import Desired
from domain.vm.addresses import addressed, nowhere
from domain.vm.boots import begun, ready, rebooted, same_run
from domain.vm.events import (
    Happened,
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
from domain.vm.state import Vm, asked, known, settled, started_anew
from domain.vm.values import AT_REST, SIZED, WAITING, Failure, Phase
from domain.vm.verb import AnyVerb, verb_named
from domain.vm.verbs import VERBS, delete, start, stop
from domain.vm.verbs.create import VmRequested, created

#: Automatic restarts whose operations a VM knows; connections to its console that are open, and that have ended.
MOST_RESTARTS, MOST_CONSOLES = 8, 256

_ASKED: dict[type[Event], AnyVerb] = {verb.event: verb for verb in VERBS}


def evolve(vm: Vm | None, event: Event) -> Vm | None:
    """The state after an event. Events of other types change nothing."""
    if isinstance(event, VmRequested):
        return created(event)
    if vm is None or not isinstance(event, VmEvent):
        return vm
    verb = _ASKED.get(type(event))
    if verb is not None:
        return replace(verb.evolve(vm, event), updated_at=event.at)
    if isinstance(event, Happened):
        return happened(vm, event)
    return replace(vm, updated_at=event.at)


def happened(vm: Vm, event: Happened) -> Vm:
    """The state after something that nobody asked for. Who is connected to a console is no change of the VM."""
    if isinstance(event, VmConsoleOpened | VmConsoleClosed):
        return connected(vm, event)
    return replace(changed(vm, event), updated_at=event.at)


def connected(vm: Vm, event: VmConsoleOpened | VmConsoleClosed) -> Vm:
    """The sessions that are open after an event. Those of a gateway that was killed stay, until others come after."""
    if isinstance(event, VmConsoleOpened):
        return replace(vm, consoles=(*vm.consoles, event.session)[-MOST_CONSOLES:])
    left = tuple(session for session in vm.consoles if session != event.session)
    return replace(vm, consoles=left, consoles_ended=(*vm.consoles_ended, event.session)[-MOST_CONSOLES:])


def changed(vm: Vm, event: Happened) -> Vm:
    match event:
        case VmUnschedulable():
            return replace(vm, phase=Phase.UNSCHEDULABLE, considered=event.considered)
        case VmScheduled():
            return scheduled(vm, event)
        case VmPreparing():
            busy = replace(vm, phase=Phase.SCHEDULED, preparing=event.step)
            return replace(busy, sequence=event.sequence, lease=event.lease)
        case VmStarted():
            return started(vm, event)
        case VmStopped():
            return stopped(vm, event)
        case VmRestartScheduled():
            return replace(vm, restart_at=event.due, restarts=event.attempt)
        case VmRestartedByPolicy():
            return restarted(vm, event)
        case VmPaused():
            return settled(vm, event, Phase.PAUSED)
        case VmResumed():
            return addressed(settled(vm, event, Phase.RUNNING), event, same=True)
        case VmSuspended():
            return nowhere(settled(vm, event, Phase.SUSPENDED))
        case VmAddressesChanged():
            return addressed(replace(vm, sequence=event.sequence, lease=event.lease), event, same=False)
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
            return nowhere(replace(vm, phase=Phase.DELETED, pending=None, desired=Desired.ABSENT))
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
    return addressed(came_up, event, same=same_run(vm, event))


def stopped(vm: Vm, event: VmStopped) -> Vm:
    return replace(
        nowhere(vm),
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
    """It knows the operations of its last few automatic restarts: nobody repeats those, and they never end."""
    latest = (*vm.restarted_by, event.operation)
    operations = known(vm, event, start.NAME)
    for over in latest[:-MOST_RESTARTS]:
        operations = operations.discard(over)
    booting = started_anew(asked(vm, event, start.NAME))
    return replace(booting, operations=operations, restarted_by=latest[-MOST_RESTARTS:])


def failed(vm: Vm, event: VmFailed) -> Vm:
    """It is what the event says; where it goes on to have a domain, what is known of that stays."""
    sized = event.phase in SIZED
    return replace(
        nowhere(vm) if event.phase is Phase.STOPPED else vm,
        phase=event.phase,
        desired=vm.desired if vm.desired is Desired.ABSENT else AT_REST[event.phase],
        pending=None,
        preparing=None,
        restart_at=None,
        failure=Failure(code=event.code, detail=event.detail, at=event.at, again=to_retry(vm)),
        running_size=vm.running_size if sized else None,
        ready=vm.ready if sized else None,
        sequence=event.sequence or vm.sequence,
        lease=event.lease or vm.lease,
    )


def to_retry(vm: Vm) -> str:
    """What a retry asks for when what is pending now fails: what is wanted and no more."""
    if vm.desired is Desired.ABSENT:
        return delete.NAME
    return stop.NAME if vm.pending is not None and vm.pending.verb == stop.NAME else start.NAME


def timed_out(vm: Vm, event: VmOperationTimedOut) -> Vm:
    """Nobody waits any more. What never came up is failed and no longer wanted; the rest stays what it is.

    What was to be paused, suspended or resumed and is not is no longer to be so either.
    """
    verb = verb_named(event.verb)
    underway = vm.phase in (*WAITING, Phase.SCHEDULED) and vm.desired is not Desired.ABSENT
    if underway or (verb is not None and verb.comes_up and vm.phase is not Phase.RUNNING):
        detail = f"{event.verb} did not finish in time; start it to try again, or delete it"
        failure = Failure(code="timed_out", detail=detail, at=event.at)
        return replace(vm, pending=None, phase=Phase.FAILED, desired=Desired.OFF, failure=failure)
    if verb is not None and verb.harmless is not None:
        return replace(vm, pending=None, desired=AT_REST.get(vm.phase, vm.desired))
    return replace(vm, pending=None)
