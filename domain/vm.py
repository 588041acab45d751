"""The life of a virtual machine.

    CreateVm ─► requested ──ScheduleVm──► scheduled ──report: on──► running ◄──report: on── stopped
                   │  ▲                       │                     │  ▲                       ▲
       no room     ▼  │ room appears          │ report: error       │  └── restart: boots + 1  │
               unschedulable ──ScheduleVm──►──┘      │              └──────report: off─────────┘
                                                     ▼
    node silent: lost ──next report──► what it is    failed ──StartVm──► (scheduled again, same node; requested
                                                                          again where it never had one)
    DeleteVm, from anywhere ─► desired `absent` ──report: absent──► deleted

The phase is what is true; `desired` (on, off, absent) and `boots` (how often it was told to boot) are what is wanted;
`pending` is the operation that waits for the two to meet. Every pending operation has a deadline, and every phase a
command that leads out of it.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Literal, assert_never

from pydantic import AwareDatetime, Field

from domain.base import (
    Command,
    Event,
    Hostname,
    Known,
    Message,
    Rejected,
    Resources,
    Sealed,
    Slug,
    Tags,
    Uuid,
    Value,
    same_request,
)
from domain.contract import Desired, NodeReport, Power

PLACEMENT_DEADLINE = timedelta(hours=24)
CREATE_DEADLINE = timedelta(minutes=30)
POWER_DEADLINE = timedelta(minutes=10)
DELETE_DEADLINE = timedelta(minutes=10)


class Phase(StrEnum):
    """What is true of a VM, as far as anybody can see."""

    REQUESTED = "requested"
    UNSCHEDULABLE = "unschedulable"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"
    DELETED = "deleted"


class Verb(StrEnum):
    """What may be asked of a VM as an operation."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    DELETE = "delete"
    TAG = "tag"


class Spec(Value):
    """The size of a VM. Memory in MiB, disk in GiB."""

    vcpus: int = Field(ge=1, le=256)
    memory_mib: int = Field(ge=32, le=4 * 1024 * 1024)
    disk_gib: int = Field(ge=1, le=64 * 1024)

    def resources(self) -> Resources:
        return Resources(vcpus=self.vcpus, memory_mib=self.memory_mib, disk_gib=self.disk_gib)


class Considered(Message):
    """A node that placement looked at: the reason it was passed over, or None for the one it took."""

    node: str
    reason: str | None = None


class HostKey(Message):
    """A public SSH host key of the guest, as the guest itself reported it."""

    type: str
    key: str
    fingerprint: str = Field(description="SHA256:…, as ssh-keygen -l prints it")


# ── messages: commands ──────────────────────────────────────────────────────────────────────────────────────────────


class VmCommand(Command):
    vm: Uuid


class Asked(VmCommand):
    """A command that somebody asked for: an operation, recognised when it is asked again."""

    VERB: ClassVar[Verb]
    operation: Uuid
    fingerprint: str


class CreateVm(Asked):
    VERB = Verb.CREATE
    project: Slug
    name: Hostname
    image: Slug
    spec: Spec
    region: Slug | None = None
    tags: Tags = ()
    ssh_keys: tuple[str, ...] = ()
    user_data: Sealed | None = None


class StartVm(Asked):
    VERB = Verb.START


class StopVm(Asked):
    VERB = Verb.STOP
    force: bool = False
    grace_seconds: float = Field(default=90, ge=0, le=3600)


class RestartVm(Asked):
    VERB = Verb.RESTART
    force: bool = False
    grace_seconds: float = Field(default=90, ge=0, le=3600)


class DeleteVm(Asked):
    VERB = Verb.DELETE


class TagVm(Asked):
    VERB = Verb.TAG
    tags: Tags


class ScheduleVm(VmCommand):
    node: Slug
    considered: tuple[Considered, ...] = ()


class DeferVm(VmCommand):
    """No node has room; placement tries again whenever the cloud changes."""

    considered: tuple[Considered, ...] = ()


class DropVm(VmCommand):
    """What the VM was to be built on is gone (its project or image was deleted at the same moment)."""

    code: str
    detail: str


class RecordReport(VmCommand):
    report: NodeReport


class RecordGuestReady(VmCommand):
    hostname: str | None = None
    host_keys: tuple[HostKey, ...] = ()


class ExpireOperation(VmCommand):
    operation: Uuid


class LoseVm(VmCommand):
    """The VM's node has not been heard of: what the VM does now is unknown."""

    node: Slug


VmCommands = (
    CreateVm
    | StartVm
    | StopVm
    | RestartVm
    | DeleteVm
    | TagVm
    | ScheduleVm
    | DeferVm
    | DropVm
    | RecordReport
    | RecordGuestReady
    | ExpireOperation
    | LoseVm
)


# ── messages: events ────────────────────────────────────────────────────────────────────────────────────────────────


class VmEvent(Event):
    """`at` is when it was decided; `operation` the operation it belongs to, if any."""

    at: AwareDatetime
    operation: str | None = None


class VmAsked(VmEvent):
    """An operation was accepted; `cancels` names the one it overtakes."""

    operation: str
    fingerprint: str
    deadline: AwareDatetime
    cancels: str | None = None


class VmRequested(VmAsked):
    TOPIC = "nebula.vm.VmRequested"
    vm: str
    project: str
    name: str
    image: str
    spec: Spec
    region: str | None = None
    tags: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    user_data: Sealed | None = None


class VmUnschedulable(VmEvent):
    TOPIC = "nebula.vm.VmUnschedulable"
    considered: tuple[Considered, ...]


class VmScheduled(VmEvent):
    """Placed on a node. `epoch` fences: a node with an older one must let go."""

    TOPIC = "nebula.vm.VmScheduled"
    node: str
    epoch: int
    deadline: AwareDatetime
    considered: tuple[Considered, ...]


class VmStartRequested(VmAsked):
    TOPIC = "nebula.vm.VmStartRequested"


class VmStopRequested(VmAsked):
    """Graceful until `force_after`, then the plug is pulled."""

    TOPIC = "nebula.vm.VmStopRequested"
    force_after: AwareDatetime


class VmRestartRequested(VmAsked):
    TOPIC = "nebula.vm.VmRestartRequested"
    force_after: AwareDatetime


class VmDeletionRequested(VmAsked):
    TOPIC = "nebula.vm.VmDeletionRequested"


class VmTagged(VmAsked):
    TOPIC = "nebula.vm.VmTagged"
    tags: tuple[str, ...]


class VmObserved(VmEvent):
    """Something a node reported; `sequence` orders the reports of one VM."""

    node: str
    sequence: int


class VmPreparing(VmObserved):
    """The node has begun: fetching the image, making the disk."""

    TOPIC = "nebula.vm.VmPreparing"
    step: str


class VmStarted(VmObserved):
    TOPIC = "nebula.vm.VmStarted"
    boots: int
    addresses: tuple[str, ...] = ()


class VmStopped(VmObserved):
    """`cause`: requested, guest (it powered itself off), crashed, or unknown."""

    TOPIC = "nebula.vm.VmStopped"
    cause: Literal["requested", "guest", "crashed", "unknown"]


class VmAddressesChanged(VmObserved):
    TOPIC = "nebula.vm.VmAddressesChanged"
    addresses: tuple[str, ...]


class VmGuestReady(VmEvent):
    """cloud-init in the guest finished and phoned home."""

    TOPIC = "nebula.vm.VmGuestReady"
    hostname: str | None = None
    host_keys: tuple[HostKey, ...]


class VmFailed(VmEvent):
    """It could not be made so. `operation` is the one that failed, if one was pending."""

    TOPIC = "nebula.vm.VmFailed"
    code: str
    detail: str
    node: str | None = None
    sequence: int = 0


class VmLost(VmEvent):
    TOPIC = "nebula.vm.VmLost"
    node: str


class VmOperationTimedOut(VmEvent):
    TOPIC = "nebula.vm.VmOperationTimedOut"
    operation: str
    verb: Verb


class VmDeleted(VmEvent):
    """Nothing is left of it on any node; its keys are destroyed next. `node` is where it was, if anywhere."""

    TOPIC = "nebula.vm.VmDeleted"
    node: str | None = None


VmEvents = (
    VmRequested
    | VmUnschedulable
    | VmScheduled
    | VmStartRequested
    | VmStopRequested
    | VmRestartRequested
    | VmDeletionRequested
    | VmTagged
    | VmPreparing
    | VmStarted
    | VmStopped
    | VmAddressesChanged
    | VmGuestReady
    | VmFailed
    | VmLost
    | VmOperationTimedOut
    | VmDeleted
)

# ── state ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Pending(Message):
    """The operation that waits: until `deadline`, then it times out."""

    operation: str
    verb: Verb
    since: AwareDatetime
    deadline: AwareDatetime


class Failure(Message):
    code: str
    detail: str
    at: AwareDatetime


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
    ssh_keys: tuple[str, ...] = ()
    user_data: Sealed | None = None
    node: str | None = None
    epoch: int = 0
    force_after: AwareDatetime | None = None
    pending: Pending | None = None
    addresses: tuple[str, ...] = ()
    started_at: AwareDatetime | None = None
    ready_at: AwareDatetime | None = None
    host_keys: tuple[HostKey, ...] = ()
    preparing: str | None = None
    considered: tuple[Considered, ...] = ()
    failure: Failure | None = None
    sequence: int = 0
    operations: dict[str, Known] = Field(default_factory=dict)


# ── decide ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def decide(vm: Vm | None, command: VmCommands) -> list[VmEvents]:
    """What follows from a command: events, or nothing when it has been so already, or Rejected."""
    if isinstance(command, CreateVm):
        return create(vm, command)
    if vm is None:
        raise Rejected("vm_not_found", f"there is no VM {command.vm} in this project", status=404, field="vm")
    if isinstance(command, Asked):
        if same_request(vm.operations.get(command.operation), command.VERB, command.fingerprint):
            return []
        if vm.phase is Phase.DELETED:
            raise Rejected("vm_deleted", "this VM was deleted; read its past with ?at=", status=410)
    elif vm.phase is Phase.DELETED:
        return []
    match command:
        case StartVm():
            return start(vm, command)
        case StopVm():
            return stop(vm, command)
        case RestartVm():
            return restart(vm, command)
        case DeleteVm():
            return delete(vm, command)
        case TagVm():
            return [
                VmTagged(
                    at=command.at,
                    operation=command.operation,
                    fingerprint=command.fingerprint,
                    deadline=command.at,
                    tags=command.tags,
                )
            ]
        case ScheduleVm():
            return schedule(vm, command)
        case DeferVm():
            if vm.phase not in (Phase.REQUESTED, Phase.UNSCHEDULABLE):
                return []
            if vm.phase is Phase.UNSCHEDULABLE and vm.considered == command.considered:
                return []
            operation = vm.pending.operation if vm.pending else None
            return [VmUnschedulable(at=command.at, operation=operation, considered=command.considered)]
        case DropVm():
            if vm.phase not in (Phase.REQUESTED, Phase.UNSCHEDULABLE):
                return []
            failed = VmFailed(
                at=command.at,
                operation=vm.pending.operation if vm.pending else None,
                code=command.code,
                detail=command.detail,
            )
            return [failed, VmDeleted(at=command.at)]
        case RecordReport():
            return observe(vm, command.report, command.at)
        case RecordGuestReady():
            if vm.ready_at is not None and vm.host_keys == command.host_keys:
                return []
            return [VmGuestReady(at=command.at, hostname=command.hostname, host_keys=command.host_keys)]
        case ExpireOperation():
            if vm.pending is None or vm.pending.operation != command.operation or command.at < vm.pending.deadline:
                return []
            return [VmOperationTimedOut(at=command.at, operation=vm.pending.operation, verb=vm.pending.verb)]
        case LoseVm():
            if vm.node != command.node or vm.phase not in (Phase.SCHEDULED, Phase.RUNNING, Phase.STOPPED):
                return []
            return [VmLost(at=command.at, node=command.node)]
        case _:
            assert_never(command)


def create(vm: Vm | None, command: CreateVm) -> list[VmEvents]:
    if vm is not None:
        if same_request(vm.operations.get(command.operation), command.VERB, command.fingerprint):
            return []
        raise Rejected("vm_exists", f"there is a VM with id {command.vm} already", field="id")
    return [
        VmRequested(
            at=command.at,
            operation=command.operation,
            fingerprint=command.fingerprint,
            deadline=command.at + PLACEMENT_DEADLINE,
            vm=command.vm,
            project=command.project,
            name=command.name,
            image=command.image,
            spec=command.spec,
            region=command.region,
            tags=command.tags,
            ssh_keys=command.ssh_keys,
            user_data=command.user_data,
        )
    ]


def refuse_while_pending(vm: Vm) -> None:
    if vm.pending is not None:
        raise Rejected(
            "operation_pending",
            f"{vm.pending.verb} (operation {vm.pending.operation}) is under way; "
            "wait for it, or overtake it with a forced stop or a delete",
        )


def refuse(vm: Vm, verb: Verb, help_: str) -> Rejected:
    return Rejected("wrong_phase", f"cannot {verb} a VM that is {vm.phase}: {help_}")


def refuse_while_deleted(vm: Vm, verb: Verb) -> None:
    """A deletion never turns back, not even one that failed or timed out."""
    if vm.desired is Desired.ABSENT:
        raise refuse(vm, verb, "it is being deleted")


def start(vm: Vm, command: StartVm) -> list[VmEvents]:
    refuse_while_pending(vm)
    refuse_while_deleted(vm, command.VERB)
    match vm.phase:
        case Phase.STOPPED | Phase.FAILED:
            pass
        case Phase.RUNNING:
            raise refuse(vm, command.VERB, "it runs already; use restart to boot it anew")
        case Phase.LOST:
            raise refuse(vm, command.VERB, "its node is silent; it goes on when the node is back")
        case Phase.REQUESTED | Phase.UNSCHEDULABLE | Phase.SCHEDULED | Phase.DELETED:
            raise refuse(vm, command.VERB, "wait until it has been created")
        case _:
            assert_never(vm.phase)
    patience = POWER_DEADLINE if vm.started_at else CREATE_DEADLINE if vm.node else PLACEMENT_DEADLINE
    return [
        VmStartRequested(
            at=command.at,
            operation=command.operation,
            fingerprint=command.fingerprint,
            deadline=command.at + patience,
        )
    ]


def stop(vm: Vm, command: StopVm) -> list[VmEvents]:
    cancels = None
    overtakes = vm.pending is not None and vm.pending.verb in (Verb.START, Verb.STOP, Verb.RESTART)
    if command.force and vm.pending is not None and overtakes and vm.node is not None:
        cancels = vm.pending.operation
    else:
        refuse_while_pending(vm)
        refuse_while_deleted(vm, command.VERB)
        if vm.phase is not Phase.RUNNING:
            raise refuse(vm, command.VERB, "only a running VM can be stopped")
    grace = timedelta(seconds=0 if command.force else command.grace_seconds)
    return [
        VmStopRequested(
            at=command.at,
            operation=command.operation,
            fingerprint=command.fingerprint,
            deadline=command.at + grace + POWER_DEADLINE,
            force_after=command.at + grace,
            cancels=cancels,
        )
    ]


def restart(vm: Vm, command: RestartVm) -> list[VmEvents]:
    refuse_while_pending(vm)
    refuse_while_deleted(vm, command.VERB)
    if vm.phase is not Phase.RUNNING:
        raise refuse(vm, command.VERB, "only a running VM can be restarted; use start")
    grace = timedelta(seconds=0 if command.force else command.grace_seconds)
    return [
        VmRestartRequested(
            at=command.at,
            operation=command.operation,
            fingerprint=command.fingerprint,
            deadline=command.at + grace + POWER_DEADLINE,
            force_after=command.at + grace,
        )
    ]


def delete(vm: Vm, command: DeleteVm) -> list[VmEvents]:
    if vm.pending is not None and vm.pending.verb is Verb.DELETE:
        refuse_while_pending(vm)
    asked = VmDeletionRequested(
        at=command.at,
        operation=command.operation,
        fingerprint=command.fingerprint,
        deadline=command.at + DELETE_DEADLINE,
        cancels=vm.pending.operation if vm.pending else None,
    )
    if vm.node is None:
        return [asked, VmDeleted(at=command.at, operation=command.operation)]
    return [asked]


def schedule(vm: Vm, command: ScheduleVm) -> list[VmEvents]:
    if vm.phase not in (Phase.REQUESTED, Phase.UNSCHEDULABLE):
        return []
    return [
        VmScheduled(
            at=command.at,
            operation=vm.pending.operation if vm.pending else None,
            node=command.node,
            epoch=vm.epoch + 1,
            deadline=command.at + CREATE_DEADLINE,
            considered=command.considered,
        )
    ]


def observe(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvents]:
    """What a node's report means. Reports of an older epoch, or older than the last that mattered, mean nothing."""
    if report.node != vm.node or report.epoch != vm.epoch or report.sequence <= vm.sequence:
        return []
    outdated = report.desired is not None and (report.desired, report.asked_boots) != (vm.desired, vm.boots)
    if outdated and (report.error is not None or report.power is not Power.ON):
        return []  # said by a daemon that had not read yet what is wanted now
    pending = vm.pending
    waiting = pending.operation if pending else None
    stopping = pending is not None and pending.verb is Verb.STOP
    if report.error is not None:
        if vm.failure is not None and vm.failure.code == report.error.code and pending is None:
            return []
        return [
            VmFailed(
                at=at,
                operation=waiting,
                node=report.node,
                sequence=report.sequence,
                code=report.error.code,
                detail=report.error.detail,
            )
        ]
    match report.power:
        case Power.ON:
            return observe_on(vm, report, at)
        case Power.OFF | Power.ABSENT if report.step is not None:
            return prepared(vm, report, at)
        case Power.OFF:
            if vm.desired is Desired.ABSENT or (vm.phase not in (Phase.RUNNING, Phase.LOST) and not stopping):
                return []
            if pending is not None and pending.verb in (Verb.CREATE, Verb.RESTART, Verb.START):
                return []
            return [stopped(vm, report, at)]
        case Power.ABSENT:
            if vm.desired is Desired.ABSENT:
                return [VmDeleted(at=at, operation=waiting, node=vm.node)]
            if vm.started_at is None or vm.phase not in (Phase.RUNNING, Phase.STOPPED, Phase.LOST):
                return [stopped(vm, report, at)] if stopping else []
            return [
                VmFailed(
                    at=at,
                    operation=waiting,
                    node=report.node,
                    sequence=report.sequence,
                    code="domain_missing",
                    detail="the hypervisor no longer knows this VM; start it to define it anew on its disk",
                )
            ]
        case Power.UNKNOWN:
            return []
        case _:
            assert_never(report.power)


def observe_on(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvents]:
    waiting = vm.pending.operation if vm.pending else None
    came_up = vm.phase is not Phase.RUNNING or (vm.pending is not None and vm.pending.verb is Verb.RESTART)
    if came_up and vm.desired is Desired.ON and (report.boots >= vm.boots or vm.pending is None):
        return [
            VmStarted(
                at=at,
                operation=waiting,
                node=report.node,
                sequence=report.sequence,
                boots=report.boots,
                addresses=report.addresses,
            )
        ]
    if vm.phase is Phase.RUNNING and report.addresses and set(report.addresses) != set(vm.addresses):
        return [VmAddressesChanged(at=at, node=report.node, sequence=report.sequence, addresses=report.addresses)]
    return []


def stopped(vm: Vm, report: NodeReport, at: datetime) -> VmStopped:
    """It is off: as asked for, or for the cause that the node knows."""
    requested = vm.desired is Desired.OFF
    return VmStopped(
        at=at,
        operation=vm.pending.operation if vm.pending and requested else None,
        node=report.node,
        sequence=report.sequence,
        cause="requested" if requested else report.cause or "unknown",
    )


def prepared(vm: Vm, report: NodeReport, at: datetime) -> list[VmEvents]:
    """The node is at it: the first report of each new step of a creation is worth an event.

    So is the first one from a node that was lost in the middle of it.
    """
    back = vm.phase is Phase.LOST and vm.pending is not None and vm.pending.verb in (Verb.CREATE, Verb.START)
    fresh = vm.phase is Phase.SCHEDULED and report.step != vm.preparing
    if report.step is None or not (back or fresh):
        return []
    operation = vm.pending.operation if vm.pending else None
    return [VmPreparing(at=at, operation=operation, node=report.node, sequence=report.sequence, step=report.step)]


# ── evolve ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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
            ssh_keys=event.ssh_keys,
            user_data=event.user_data,
            phase=Phase.REQUESTED,
            desired=Desired.ON,
            boots=1,
            created_at=event.at,
            updated_at=event.at,
            pending=pending_of(event, Verb.CREATE),
            operations={event.operation: Known(verb=Verb.CREATE, fingerprint=event.fingerprint)},
        )
    if vm is None or not isinstance(event, VmEvent):
        return vm
    return vm.model_copy(update={"updated_at": event.at, **changes(vm, event)})


def pending_of(event: VmAsked, verb: Verb) -> Pending:
    return Pending(operation=event.operation, verb=verb, since=event.at, deadline=event.deadline)


def asked(vm: Vm, event: VmAsked, verb: Verb) -> dict[str, object]:
    known = {**vm.operations, event.operation: Known(verb=verb, fingerprint=event.fingerprint)}
    return {"pending": pending_of(event, verb), "operations": known}


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
                "pending": pending,
            }
        case VmStartRequested():
            phase = vm.phase
            if phase is Phase.FAILED:
                phase = Phase.SCHEDULED if vm.node else Phase.REQUESTED
            on = {"desired": Desired.ON, "boots": vm.boots + 1, "failure": None, "force_after": None}
            return {**asked(vm, event, Verb.START), **on, "phase": phase, "preparing": None}
        case VmStopRequested():
            return {
                **asked(vm, event, Verb.STOP),
                "desired": Desired.OFF,
                "force_after": event.force_after,
            }
        case VmRestartRequested():
            again = {"desired": Desired.ON, "boots": vm.boots + 1, "force_after": event.force_after}
            return {**asked(vm, event, Verb.RESTART), **again}
        case VmDeletionRequested():
            return {**asked(vm, event, Verb.DELETE), "desired": Desired.ABSENT}
        case VmTagged():
            known = {**vm.operations, event.operation: Known(verb="tag", fingerprint=event.fingerprint)}
            return {"operations": known, "tags": event.tags}
        case VmPreparing():
            return {"phase": Phase.SCHEDULED, "preparing": event.step, "sequence": event.sequence}
        case VmStarted():
            return {
                "phase": Phase.RUNNING,
                "pending": None,
                "preparing": None,
                "failure": None,
                "force_after": None,
                "started_at": event.at,
                "addresses": event.addresses or vm.addresses,
                "sequence": event.sequence,
            }
        case VmStopped():
            desired = Desired.ABSENT if vm.desired is Desired.ABSENT else Desired.OFF
            return {
                "phase": Phase.STOPPED,
                "desired": desired,
                "pending": None if event.operation else vm.pending,
                "force_after": None,
                "addresses": (),
                "sequence": event.sequence,
            }
        case VmAddressesChanged():
            return {"addresses": event.addresses, "sequence": event.sequence}
        case VmGuestReady():
            return {"ready_at": event.at, "host_keys": event.host_keys}
        case VmFailed():
            desired = Desired.ABSENT if vm.desired is Desired.ABSENT else Desired.OFF
            return {
                "phase": Phase.FAILED,
                "desired": desired,
                "pending": None,
                "preparing": None,
                "failure": Failure(code=event.code, detail=event.detail, at=event.at),
                "sequence": max(vm.sequence, event.sequence),
            }
        case VmLost():
            return {"phase": Phase.LOST}
        case VmOperationTimedOut():
            return timed_out(vm, event)
        case VmDeleted():
            return {"phase": Phase.DELETED, "pending": None, "desired": Desired.ABSENT, "addresses": ()}
        case _:
            return {}


def timed_out(vm: Vm, event: VmOperationTimedOut) -> dict[str, object]:
    """Nobody waits any more. What never came up is failed and no longer wanted; the rest stays what it is."""
    if event.verb in (Verb.CREATE, Verb.START) and vm.phase is not Phase.RUNNING:
        detail = f"{event.verb} did not finish in time; start it to try again, or delete it"
        failure = Failure(code="timed_out", detail=detail, at=event.at)
        return {"pending": None, "phase": Phase.FAILED, "desired": Desired.OFF, "failure": failure}
    return {"pending": None}
