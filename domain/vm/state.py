"""A VM as its events tell it, and what each event changes."""

from collections.abc import Mapping

from pydantic import AwareDatetime, Field

from domain.base import Event, Message, Resources, Sealed
from domain.contract import Desired, Watchdog
from domain.guest import AddressSource
from domain.known import NONE, Known, Operations
from domain.vm.addresses import NOWHERE, addressed
from domain.vm.boots import begun, ready, rebooted, same_run
from domain.vm.events import (
    VmAbandoned,
    VmAddressesChanged,
    VmAsked,
    VmChanged,
    VmCleared,
    VmConsoleEvent,
    VmConsoleOpened,
    VmDeleted,
    VmDeletionRequested,
    VmEvent,
    VmFailed,
    VmForgotten,
    VmGuestReady,
    VmGuestRebooted,
    VmLost,
    VmObserved,
    VmOperationTimedOut,
    VmPaused,
    VmPauseRequested,
    VmPreparing,
    VmRebuildRequested,
    VmRequested,
    VmResized,
    VmRestartedByPolicy,
    VmRestartRequested,
    VmRestartScheduled,
    VmResumed,
    VmResumeRequested,
    VmRetryRequested,
    VmScheduled,
    VmStarted,
    VmStartRequested,
    VmStopped,
    VmStopRequested,
    VmSuspended,
    VmSuspendRequested,
    VmTagged,
    VmUnschedulable,
)
from domain.vm.values import (
    AT_REST,
    SIZED,
    WAITING,
    Considered,
    Failure,
    HostKey,
    Notice,
    Pending,
    Phase,
    Ready,
    RestartPolicy,
    Spec,
    Verb,
)

#: Automatic restarts whose operations a VM knows; connections to its console that are open, and that have ended.
MOST_RESTARTS, MOST_CONSOLES = 8, 256


class Vm(Message):
    """A VM as its events tell it."""

    id: str
    project: str
    name: str
    image: str
    spec: Spec
    phase: Phase
    desired: Desired
    boots: int
    created_at: AwareDatetime
    updated_at: AwareDatetime
    region: str | None = None
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    protected: bool = False
    restart_policy: RestartPolicy = RestartPolicy.NO
    watchdog: Watchdog = Field(default=Watchdog.DISABLED, description="what its domain gets at its next start")
    restart_at: AwareDatetime | None = Field(default=None, description="when its policy starts it again")
    restarts: int = Field(default=0, description="how often in a row its policy has started it")
    ssh_keys: tuple[str, ...] = ()
    user_data: Sealed | None = None
    notices: tuple[Notice, ...] = Field(default=(), description="what its user-data will not do")
    description: str | None = None
    created_by: str | None = Field(default=None, description="the actor who made it")
    disk: int = Field(default=1, description="how often its disk was to be made")
    disk_made: int = Field(default=0, description="the last of its disks that it ran on")
    running_size: Resources | None = Field(default=None, description="what its domain was started with, where known")
    mac: str | None = None
    node: str | None = None
    epoch: int = 0
    force_after: AwareDatetime | None = None
    grace_seconds: float | None = Field(default=None, description="what `force_after` was when it was asked for")
    pending: Pending | None = None
    addresses: tuple[str, ...] = Field(default=(), description="of the guest's present boot")
    address_sources: tuple[AddressSource, ...] = Field(default=(), description="who says so, where known")
    started_at: AwareDatetime | None = None
    first_ready_at: AwareDatetime | None = Field(default=None, description="when a guest was first ready on this disk")
    ready_at: AwareDatetime | None = Field(default=None, description="when one was last, in whichever boot")
    ready: Ready | None = Field(default=None, description="what the guest of this very boot has said")
    booted: int = Field(default=0, description="the count of boots that its domain was last started for")
    host_boot: str | None = Field(default=None, description="the boot of the host in which that was, where known")
    resets: int = Field(default=0, description="how often its guest has reset itself since")
    rebooted_at: AwareDatetime | None = Field(default=None, description="when that was last")
    guest_boots: int = Field(default=0, description="how often its guest has booted in all, as far as anybody saw")
    host_keys: tuple[HostKey, ...] = ()
    preparing: str | None = None
    considered: tuple[Considered, ...] = ()
    failure: Failure | None = None
    sequence: int = 0
    lease: int = 0
    forgotten: str | None = Field(default=None, description="why it was taken for gone without its node")
    cleared: bool = Field(default=False, description="its node has let go of it since")
    folder: str | None = Field(default=None, exclude=True, description="where its disk lay when it was forgotten")
    restarted_by: tuple[str, ...] = Field(
        default=(), exclude=True, description="the operations of its last automatic restarts"
    )
    consoles: tuple[str, ...] = Field(default=(), exclude=True, description="the sessions of its console that are open")
    consoles_ended: tuple[str, ...] = Field(default=(), exclude=True, description="the last of those that have ended")
    operations: Operations = NONE


#: The fields of a VM that people change at any time.
CHANGEABLE = ("name", "tags", "labels", "protected", "restart_policy", "watchdog", "description")


def evolve(vm: Vm | None, event: Event) -> Vm | None:
    """The state after an event. It never judges; events of other types change nothing."""
    if isinstance(event, VmRequested):
        return Vm(
            id=event.vm,
            project=event.project,
            name=event.name,
            image=event.image,
            spec=event.spec,
            region=event.region,
            tags=event.tags,
            labels=event.labels,
            protected=event.protected,
            restart_policy=event.restart_policy,
            watchdog=event.watchdog,
            ssh_keys=event.ssh_keys,
            user_data=event.user_data,
            notices=event.notices,
            description=event.description,
            created_by=event.created_by,
            phase=Phase.REQUESTED,
            desired=Desired.ON,
            boots=1,
            created_at=event.at,
            updated_at=event.at,
            pending=pending_of(event, Verb.CREATE),
            operations=NONE.insert(event.operation, Known(Verb.CREATE, event.fingerprint)),
        )
    if vm is None or not isinstance(event, VmEvent):
        return vm
    if isinstance(event, VmConsoleEvent):
        return vm.model_copy(update=connected(vm, event))
    return vm.model_copy(update={"updated_at": event.at, **changes(vm, event)})


def connected(vm: Vm, event: VmConsoleEvent) -> dict[str, object]:
    """The sessions that are open after an event. Those of a gateway that was killed stay, until others come after."""
    if isinstance(event, VmConsoleOpened):
        return {"consoles": (*vm.consoles, event.session)[-MOST_CONSOLES:]}
    left = tuple(session for session in vm.consoles if session != event.session)
    return {"consoles": left, "consoles_ended": (*vm.consoles_ended, event.session)[-MOST_CONSOLES:]}


def pending_of(event: VmAsked, verb: Verb) -> Pending:
    return Pending(operation=event.operation, verb=verb, since=event.at, deadline=event.deadline)


def asked(vm: Vm, event: VmAsked, verb: Verb) -> dict[str, object]:
    return {"pending": pending_of(event, verb), "operations": known(vm, event, verb), "restart_at": None}


def restarted(vm: Vm, event: VmRestartedByPolicy) -> dict[str, object]:
    """It knows the operations of its last few automatic restarts: nobody repeats those, and they never end."""
    latest = (*vm.restarted_by, event.operation)
    operations = known(vm, event, Verb.START)
    for over in latest[:-MOST_RESTARTS]:
        operations = operations.discard(over)
    kept = {"operations": operations, "restarted_by": latest[-MOST_RESTARTS:]}
    return {**asked(vm, event, Verb.START), **started_anew(vm), **kept}


def known(vm: Vm, event: VmAsked, verb: Verb) -> Operations:
    return vm.operations.insert(event.operation, Known(verb, event.fingerprint))


def changes(vm: Vm, event: VmEvent) -> dict[str, object]:
    """The fields that an event changes."""
    match event:
        case VmUnschedulable():
            return {"phase": Phase.UNSCHEDULABLE, "considered": event.considered}
        case VmScheduled():
            pending = vm.pending and vm.pending.model_copy(update={"deadline": event.deadline})
            return {
                "phase": Phase.SCHEDULED,
                "node": event.node,
                "epoch": event.epoch,
                "considered": event.considered,
                "mac": event.mac,
                "pending": pending,
            }
        case VmStartRequested():
            return {**asked(vm, event, Verb.START), **started_anew(vm), "restarts": 0}
        case VmStopRequested():
            return {**asked(vm, event, Verb.STOP), "desired": Desired.OFF, **graceful(event)}
        case VmRestartRequested():
            again = {"desired": Desired.ON, "boots": vm.boots + 1}
            return {**asked(vm, event, Verb.RESTART), **again, **graceful(event)}
        case VmPauseRequested():
            return {**asked(vm, event, Verb.PAUSE), "desired": Desired.PAUSED}
        case VmResumeRequested():
            return {**asked(vm, event, Verb.RESUME), "desired": Desired.ON}
        case VmSuspendRequested():
            return {**asked(vm, event, Verb.SUSPEND), "desired": Desired.SUSPENDED}
        case VmDeletionRequested():
            return {**asked(vm, event, Verb.DELETE), "desired": Desired.ABSENT}
        case VmRetryRequested():
            return retried(vm, event)
        case VmAbandoned():
            return abandoned(vm, event)
        case VmForgotten():
            gone = {"desired": Desired.ABSENT, "epoch": event.epoch, "forgotten": event.reason, "folder": event.folder}
            return {**asked(vm, event, Verb.FORGET), **gone}
        case VmTagged():
            return {"operations": known(vm, event, Verb.TAG), "tags": event.tags}
        case VmChanged():
            said = {field: getattr(event, field) for field in CHANGEABLE}
            changed = {field: value for field, value in said.items() if value is not None}
            stays_off = {"restart_at": None} if event.restart_policy is RestartPolicy.NO else {}
            return {"operations": known(vm, event, Verb.CHANGE), **changed, **stays_off}
        case VmResized():
            had = vm.running_size or (vm.spec.resources() if vm.phase in SIZED else None)
            return {"operations": known(vm, event, Verb.RESIZE), "spec": event.spec, "running_size": had}
        case VmRebuildRequested():
            made = {"image": event.image, "disk": event.disk, "ssh_keys": event.ssh_keys, "user_data": event.user_data}
            unknown = {"first_ready_at": None, "ready_at": None, "ready": None, "host_keys": ()}
            more = {**made, **unknown, "notices": event.notices}
            return {**asked(vm, event, Verb.REBUILD), **started_anew(vm), **more}
        case VmPreparing():
            return {"phase": Phase.SCHEDULED, "preparing": event.step, "sequence": event.sequence, "lease": event.lease}
        case VmStarted():
            return {
                "phase": Phase.RUNNING,
                "pending": None,
                "preparing": None,
                "failure": None,
                **AT_ONCE,
                "running_size": event.size,
                "started_at": event.at,
                **begun(vm, event),
                **addressed(event, same=same_run(vm, event)),
                "disk_made": vm.disk if event.boots >= vm.boots else vm.disk_made,
                "sequence": event.sequence,
                "lease": event.lease,
            }
        case VmStopped():
            desired = Desired.ABSENT if vm.desired is Desired.ABSENT else Desired.OFF
            return {
                "phase": Phase.STOPPED,
                "desired": desired,
                "pending": None if event.operation else vm.pending,
                **AT_ONCE,
                "running_size": None,
                "ready": None,
                **NOWHERE,
                "sequence": event.sequence,
                "lease": event.lease,
            }
        case VmRestartScheduled():
            return {"restart_at": event.due, "restarts": event.attempt}
        case VmRestartedByPolicy():
            return restarted(vm, event)
        case VmPaused():
            return {**settled(vm, event), "phase": Phase.PAUSED}
        case VmResumed():
            return {**settled(vm, event), "phase": Phase.RUNNING, **addressed(event, same=True)}
        case VmSuspended():
            return {**settled(vm, event), "phase": Phase.SUSPENDED, **NOWHERE}
        case VmAddressesChanged():
            return {**addressed(event, same=False), "sequence": event.sequence, "lease": event.lease}
        case VmGuestRebooted():
            return rebooted(vm, event)
        case VmGuestReady():
            return ready(vm, event)
        case VmFailed():
            return {
                "phase": event.phase,
                "desired": vm.desired if vm.desired is Desired.ABSENT else AT_REST[event.phase],
                "pending": None,
                "preparing": None,
                "restart_at": None,
                "failure": Failure(code=event.code, detail=event.detail, at=event.at, again=to_retry(vm)),
                **(NOWHERE if event.phase is Phase.STOPPED else {}),
                "running_size": vm.running_size if event.phase in SIZED else None,
                "ready": vm.ready if event.phase in SIZED else None,
                "sequence": event.sequence or vm.sequence,
                "lease": event.lease or vm.lease,
            }
        case VmLost():
            return {"phase": Phase.LOST}
        case VmOperationTimedOut():
            return timed_out(vm, event)
        case VmDeleted():
            return {"phase": Phase.DELETED, "pending": None, "desired": Desired.ABSENT, **NOWHERE}
        case VmCleared():
            return {"cleared": True, "sequence": event.sequence, "lease": event.lease}
        case _:
            return {}


#: Nothing is to end gracefully.
AT_ONCE: Mapping[str, object] = {"force_after": None, "grace_seconds": None}


def graceful(event: VmStopRequested | VmRestartRequested | VmRetryRequested | VmAbandoned) -> Mapping[str, object]:
    """Until when, and for how long, a guest may shut down by itself."""
    until = event.force_after
    return {"force_after": until, "grace_seconds": (until - event.at).total_seconds() if until else None}


def started_anew(vm: Vm) -> dict[str, object]:
    phase = vm.phase
    if phase is Phase.FAILED:
        phase = Phase.SCHEDULED if vm.node else Phase.REQUESTED
    return {"desired": Desired.ON, "boots": vm.boots + 1, "failure": None, **AT_ONCE, "phase": phase, "preparing": None}


def to_retry(vm: Vm) -> Verb:
    """What a retry asks for when what is pending now fails: what is wanted and no more."""
    if vm.desired is Desired.ABSENT:
        return Verb.DELETE
    return Verb.STOP if vm.pending is not None and vm.pending.verb is Verb.STOP else Verb.START


def retried(vm: Vm, event: VmRetryRequested) -> dict[str, object]:
    operations = known(vm, event, Verb.RETRY)
    waits = {"pending": pending_of(event, event.again), "operations": operations, "restart_at": None}
    match event.again:
        case Verb.DELETE:
            return {**waits, "desired": Desired.ABSENT}
        case Verb.STOP:
            return {**waits, "desired": Desired.OFF, **graceful(event)}
        case _:
            return {**waits, **started_anew(vm)}


def abandoned(vm: Vm, event: VmAbandoned) -> dict[str, object]:
    """What never came up is failed and no longer wanted; anything else is wanted as it is."""
    over = {"pending": None, "preparing": None, "operations": known(vm, event, Verb.ABANDON)}
    if vm.phase in (*WAITING, Phase.SCHEDULED):
        detail = f"{event.verb} was abandoned; start it to try again, or delete it"
        failure = Failure(code="abandoned", detail=detail, at=event.at)
        return {**over, "phase": Phase.FAILED, "desired": Desired.OFF, "failure": failure}
    coming = event.verb in (Verb.CREATE, Verb.START, Verb.REBUILD)
    desired = AT_REST.get(vm.phase, Desired.OFF if coming else vm.desired)
    return {**over, "desired": desired, **(graceful(event) if desired is Desired.OFF else AT_ONCE)}


def settled(vm: Vm, event: VmObserved) -> dict[str, object]:
    """It is as it was wanted."""
    return {
        "pending": None if event.operation else vm.pending,
        "preparing": None,
        "failure": None,
        "sequence": event.sequence,
        "lease": event.lease,
    }


def timed_out(vm: Vm, event: VmOperationTimedOut) -> dict[str, object]:
    """Nobody waits any more. What never came up is failed and no longer wanted; the rest stays what it is.

    What was to be paused, suspended or resumed and is not is no longer to be so either.
    """
    underway = vm.phase in (*WAITING, Phase.SCHEDULED) and vm.desired is not Desired.ABSENT
    if underway or (event.verb in (Verb.CREATE, Verb.START, Verb.REBUILD) and vm.phase is not Phase.RUNNING):
        detail = f"{event.verb} did not finish in time; start it to try again, or delete it"
        failure = Failure(code="timed_out", detail=detail, at=event.at)
        return {"pending": None, "phase": Phase.FAILED, "desired": Desired.OFF, "failure": failure}
    if event.verb in (Verb.PAUSE, Verb.RESUME, Verb.SUSPEND):
        return {"pending": None, "desired": AT_REST.get(vm.phase, vm.desired)}
    return {"pending": None}
