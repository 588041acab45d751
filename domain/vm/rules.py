"""What follows from a command. Pure: time and ids come with the command.

Whether a verb is taken at all stands in `table.py`; here is what follows once it is.
"""

from datetime import timedelta
from typing import Any, assert_never

from domain.base import Rejected
from domain.contract import Desired
from domain.known import same_request
from domain.vm import consoles
from domain.vm.commands import (
    AbandonVm,
    Asked,
    ChangeVm,
    CloseConsole,
    CreateVm,
    DeferVm,
    DeleteVm,
    DropVm,
    ExpireOperation,
    ForgetVm,
    LoseVm,
    OpenConsole,
    PauseVm,
    RebuildVm,
    RecordGuestReady,
    RecordReport,
    ResizeVm,
    RestartByPolicy,
    RestartVm,
    ResumeVm,
    RetryVm,
    ScheduleVm,
    StartVm,
    StopVm,
    SuspendVm,
    TagVm,
    VmCommands,
)
from domain.vm.deadlines import (
    CREATE_DEADLINE,
    DELETE_DEADLINE,
    PLACEMENT_DEADLINE,
    POWER_DEADLINE,
    on_disk,
    until_up,
)
from domain.vm.events import (
    VmAbandoned,
    VmChanged,
    VmDeleted,
    VmDeletionRequested,
    VmEvents,
    VmForgotten,
    VmLost,
    VmOperationTimedOut,
    VmPauseRequested,
    VmRebuildRequested,
    VmRequested,
    VmResized,
    VmRestartedByPolicy,
    VmRestartRequested,
    VmResumeRequested,
    VmRetryRequested,
    VmStartRequested,
    VmStopped,
    VmStopRequested,
    VmSuspendRequested,
    VmTagged,
)
from domain.vm.reports import buried, guest_ready, observe
from domain.vm.scheduling import defer, drop, schedule
from domain.vm.state import Vm
from domain.vm.table import GONE, admit, wrong_phase
from domain.vm.values import STARTED_AGAIN, VISIBLE, Phase, Spec, Verb

#: How long a guest may take to shut down where nobody says how long.
GRACE = timedelta(seconds=90)
#: The fingerprint of the operations that restart policies start.
BY_POLICY = "restart_policy"


def decide(vm: Vm | None, command: VmCommands) -> list[VmEvents]:
    """What follows from a command: events, or nothing when it has been so already, or Rejected."""
    if isinstance(command, CreateVm):
        return create(vm, command)
    if vm is None:
        raise Rejected("vm_not_found", f"there is no VM {command.vm} in this project", status=404, field="vm")
    if isinstance(command, Asked):
        if asked_before(vm, command):
            return []
        if vm.phase is Phase.DELETED:
            raise Rejected("vm_deleted", GONE, status=410)
    elif vm.phase is Phase.DELETED and not isinstance(command, OpenConsole | CloseConsole):
        return buried(vm, command) if isinstance(command, RecordReport) else []
    match command:
        case StartVm():
            return start(vm, command)
        case StopVm():
            return stop(vm, command)
        case RestartVm():
            return restart(vm, command)
        case PauseVm():
            return [VmPauseRequested(**accepted(command, POWER_DEADLINE, admit(vm, command.VERB)))]
        case ResumeVm():
            patience = POWER_DEADLINE + on_disk(vm) if vm.phase is Phase.SUSPENDED else POWER_DEADLINE
            return [VmResumeRequested(**accepted(command, patience, admit(vm, command.VERB)))]
        case SuspendVm():
            patience = POWER_DEADLINE + on_disk(vm)
            return [VmSuspendRequested(**accepted(command, patience, admit(vm, command.VERB)))]
        case DeleteVm():
            return delete(vm, command)
        case RetryVm():
            return retry(vm, command)
        case AbandonVm():
            return abandon(vm, command)
        case ForgetVm():
            return forget(vm, command)
        case TagVm():
            return [VmTagged(**accepted(command, timedelta()), tags=command.tags)]
        case ChangeVm():
            return change(vm, command)
        case ResizeVm():
            return resize(vm, command)
        case RebuildVm():
            return rebuild(vm, command)
        case ScheduleVm():
            return schedule(vm, command)
        case DeferVm():
            return defer(vm, command)
        case DropVm():
            return drop(vm, command)
        case RecordReport():
            return observe(vm, command.report, command.at)
        case RecordGuestReady():
            return guest_ready(vm, command)
        case ExpireOperation():
            if vm.pending is None or vm.pending.operation != command.operation or command.at < vm.pending.deadline:
                return []
            return [VmOperationTimedOut(at=command.at, operation=vm.pending.operation, verb=vm.pending.verb)]
        case RestartByPolicy():
            return restart_by_policy(vm, command)
        case LoseVm():
            if vm.node != command.node or vm.phase not in VISIBLE:
                return []
            return [VmLost(at=command.at, node=command.node)]
        case OpenConsole() | CloseConsole():
            return [*consoles.decide(vm, command)]
        case _:
            assert_never(command)


# ── what people ask ─────────────────────────────────────────────────────────────────────────────────────────────────


def accepted(command: Asked, patience: timedelta, cancels: str | None = None) -> dict[str, Any]:
    """What every event says that accepts an operation. `patience` is how long the operation may take."""
    return {
        "at": command.at,
        "operation": command.operation,
        "fingerprint": command.fingerprint,
        "deadline": command.at + patience,
        "cancels": cancels,
    }


def asked_before(vm: Vm, command: Asked) -> bool:
    """Whether this very request was accepted already. A change of tags alone was once a verb of its own."""
    known = vm.operations.get(command.operation)
    tagged = isinstance(command, ChangeVm) and known is not None and known.verb == Verb.TAG
    return same_request(known, Verb.TAG if tagged else command.VERB, command.fingerprint)


def taken(vm: Vm) -> Rejected:
    """The refusal of an id that a VM has, or had."""
    if vm.phase is Phase.DELETED:
        detail = (
            f"the id {vm.id} was that of a VM that was deleted, and is never used again: choose another, or give none"
        )
    else:
        detail = f"the id {vm.id} is that of VM {vm.name} in this project: choose another, or give none"
    return Rejected("vm_exists", detail, field="id")


def create(vm: Vm | None, command: CreateVm) -> list[VmEvents]:
    if vm is not None:
        if same_request(vm.operations.get(command.operation), command.VERB, command.fingerprint):
            return []
        raise taken(vm)
    return [
        VmRequested(
            **accepted(command, PLACEMENT_DEADLINE),
            vm=command.vm,
            project=command.project,
            name=command.name,
            image=command.image,
            spec=command.spec,
            region=command.region,
            tags=command.tags,
            labels=command.labels,
            protected=command.protected,
            restart_policy=command.restart_policy,
            watchdog=command.watchdog,
            ssh_keys=command.ssh_keys,
            user_data=command.user_data,
            notices=command.notices,
            description=command.description,
            created_by=command.created_by,
        )
    ]


def start(vm: Vm, command: StartVm) -> list[VmEvents]:
    admit(vm, command.VERB)
    return [VmStartRequested(**accepted(command, until_up(vm)))]


def stop(vm: Vm, command: StopVm) -> list[VmEvents]:
    if vm.restart_at is not None and vm.phase in STARTED_AGAIN and vm.pending is None:
        return stay_off(vm, command)
    cancels = admit(vm, command.VERB, force=command.force or by_policy(vm))
    grace = timedelta(seconds=0 if command.force else command.grace_seconds)
    asked = accepted(command, grace + POWER_DEADLINE, cancels)
    return [VmStopRequested(**asked, force_after=command.at + grace)]


def by_policy(vm: Vm) -> bool:
    """Whether what is pending is a start that nobody asked for."""
    return vm.pending is not None and vm.operations[vm.pending.operation].fingerprint == BY_POLICY


def stay_off(vm: Vm, command: StopVm) -> list[VmEvents]:
    """It is off and would be started again by itself: a stop that somebody asks for wins."""
    asked = VmStopRequested(**accepted(command, POWER_DEADLINE), force_after=command.at)
    over = VmStopped(
        at=command.at,
        operation=command.operation,
        node=vm.node or "",
        sequence=vm.sequence,
        cause="requested",
    )
    return [asked, over]


def restart(vm: Vm, command: RestartVm) -> list[VmEvents]:
    admit(vm, command.VERB)
    grace = timedelta(seconds=0 if command.force else command.grace_seconds)
    return [VmRestartRequested(**accepted(command, grace + POWER_DEADLINE), force_after=command.at + grace)]


def delete(vm: Vm, command: DeleteVm) -> list[VmEvents]:
    cancels = admit(vm, command.VERB)
    refuse_protected(vm, command.VERB)
    asked = VmDeletionRequested(**accepted(command, DELETE_DEADLINE, cancels))
    if vm.node is None:
        return [asked, VmDeleted(at=command.at, operation=command.operation)]
    return [asked]


def retry(vm: Vm, command: RetryVm) -> list[VmEvents]:
    admit(vm, command.VERB)
    verb = Verb.DELETE if vm.desired is Desired.ABSENT else vm.failure.again if vm.failure else Verb.START
    match verb:
        case Verb.DELETE:
            refuse_protected(vm, verb)
            return [VmRetryRequested(**accepted(command, DELETE_DEADLINE), again=verb)]
        case Verb.STOP:
            asked = accepted(command, GRACE + POWER_DEADLINE)
            return [VmRetryRequested(**asked, again=verb, force_after=command.at + GRACE)]
        case _:
            return [VmRetryRequested(**accepted(command, until_up(vm)), again=Verb.START)]


def abandon(vm: Vm, command: AbandonVm) -> list[VmEvents]:
    given_up = admit(vm, command.VERB)
    assert vm.pending is not None, "only what is pending is admitted"
    asked = accepted(command, timedelta(), given_up)
    return [VmAbandoned(**asked, verb=vm.pending.verb, force_after=command.at + GRACE)]


def forget(vm: Vm, command: ForgetVm) -> list[VmEvents]:
    cancels = admit(vm, command.VERB)
    if vm.node is None:
        raise wrong_phase(vm, command.VERB, "it is on no node; delete it")
    if not command.node_lost:
        detail = f"node {vm.node} is not lost; delete the VM, or wait until the node is known to be lost"
        raise Rejected("node_not_lost", detail)
    refuse_protected(vm, command.VERB)
    asked = accepted(command, DELETE_DEADLINE, cancels)
    where = {"node": vm.node, "epoch": vm.epoch + 1, "folder": command.folder}
    forgotten = VmForgotten(**asked, **where, reason=command.reason)
    return [forgotten, VmDeleted(at=command.at, operation=command.operation, node=vm.node)]


def refuse_protected(vm: Vm, verb: Verb) -> None:
    if vm.protected:
        detail = f"cannot {verb} a VM that is protected from deletion; take that away first (protected: false)"
        raise Rejected("delete_protected", detail, field="protected")


def change(vm: Vm, command: ChangeVm) -> list[VmEvents]:
    if command.protected and vm.desired is Desired.ABSENT:
        raise wrong_phase(vm, Verb.CHANGE, "it is being deleted, and protection comes too late")
    return [
        VmChanged(
            **accepted(command, timedelta()),
            name=command.name,
            tags=command.tags,
            labels=command.labels,
            protected=command.protected,
            restart_policy=command.restart_policy,
            watchdog=command.watchdog,
            description=command.description,
        )
    ]


def resize(vm: Vm, command: ResizeVm) -> list[VmEvents]:
    """Whether there is room for it is judged on the node's books (`placement.grown`), in the same append."""
    admit(vm, command.VERB)
    asked = {field: getattr(command, field) for field in Spec.model_fields}
    given = {field: value for field, value in asked.items() if value is not None}
    if not given:
        raise Rejected("invalid_request", f"give at least one of {', '.join(Spec.model_fields)}", status=422)
    if command.disk_gib is not None and command.disk_gib < vm.spec.disk_gib:
        detail = f"the disk has {vm.spec.disk_gib} GiB and can only grow, not shrink to {command.disk_gib} GiB"
        raise Rejected("disk_cannot_shrink", detail, status=422, field="disk_gib")
    return [VmResized(**accepted(command, timedelta()), spec=vm.spec.model_copy(update=given))]


def rebuild(vm: Vm, command: RebuildVm) -> list[VmEvents]:
    admit(vm, command.VERB)
    return [
        VmRebuildRequested(
            **accepted(command, CREATE_DEADLINE if vm.node else PLACEMENT_DEADLINE),
            image=command.image,
            disk=vm.disk + 1,
            ssh_keys=vm.ssh_keys if command.ssh_keys is None else command.ssh_keys,
            user_data=command.user_data or vm.user_data,
            notices=command.notices if command.user_data else vm.notices,
        )
    ]


# ── what the platform says ──────────────────────────────────────────────────────────────────────────────────────────


def restart_by_policy(vm: Vm, command: RestartByPolicy) -> list[VmEvents]:
    due = vm.restart_at is not None and vm.restart_at <= command.at
    if not due or vm.phase not in STARTED_AGAIN or vm.pending is not None or vm.desired is not Desired.OFF:
        return []
    return [
        VmRestartedByPolicy(
            at=command.at,
            operation=command.operation,
            fingerprint=BY_POLICY,
            deadline=command.at + until_up(vm),
            attempt=vm.restarts,
        )
    ]
