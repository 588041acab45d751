"""Retry: repeat the verb that failed."""

from pydantic import AwareDatetime

from domain.access import VM_OPERATE
from domain.base import replace
from domain.contract import Desired
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import DELETE_DEADLINE, GRACE, POWER_DEADLINE, until_up
from domain.vm.events import VmDeleted, VmEvent, VmOperationAccepted, VmStarted, VmStopped
from domain.vm.state import Vm, operations_after, pending_of, with_grace, with_new_boot
from domain.vm.values import Phase
from domain.vm.verb import ACCEPTED, NODE_LOST, NOT_CREATED, WAS_DELETED, Row, VmVerb, accepted, refuse_protected
from domain.vm.verbs import delete, start, stop

NAME = "retry"
ROW: Row = {
    **NOT_CREATED,
    Phase.RUNNING: "it is running, and has not failed",
    Phase.PAUSED: "it is paused, and has not failed; use resume",
    Phase.SUSPENDED: "use resume; or stop it by force, which discards its memory",
    Phase.STOPPED: "it is off, and has not failed; use start",
    Phase.FAILED: ACCEPTED,
    **NODE_LOST,
    Phase.DELETED: WAS_DELETED,
}


class RetryVm(VmOperationCommand):
    """Repeat the verb that failed."""


class VmRetryRequested(VmOperationAccepted):
    """The verb that failed (`again`: start, stop or delete) is requested again."""

    TOPIC = "nebula.vm.VmRetryRequested"
    again: str
    force_after: AwareDatetime | None = None


def retry(vm: Vm, command: RetryVm, _: str | None) -> list[VmEvent]:
    verb = delete.NAME if vm.desired is Desired.ABSENT else vm.failure.again if vm.failure else start.NAME
    match verb:
        case delete.NAME:
            refuse_protected(vm, verb)
            return [VmRetryRequested(**accepted(command, DELETE_DEADLINE), again=verb)]
        case stop.NAME:
            until = command.at + GRACE
            return [VmRetryRequested(**accepted(command, GRACE + POWER_DEADLINE), again=verb, force_after=until)]
        case _:
            return [VmRetryRequested(**accepted(command, until_up(vm)), again=start.NAME)]


def evolve(vm: Vm, event: VmRetryRequested) -> Vm:
    waiting = replace(
        vm, pending=pending_of(event, event.again), operations=operations_after(vm, event, NAME), restart_at=None
    )
    match event.again:
        case delete.NAME:
            return replace(waiting, desired=Desired.ABSENT)
        case stop.NAME:
            return with_grace(replace(waiting, desired=Desired.OFF), event.at, event.force_after)
        case _:
            return with_new_boot(waiting)


RETRY = VmVerb(
    name=NAME,
    command=RetryVm,
    summary="Repeat the verb that failed",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmRetryRequested,
    accepted_by=(VmRetryRequested,),
    fulfilled_by=(VmStarted, VmStopped, VmDeleted),
    row=ROW,
    while_deleting=True,
    decide=retry,
    evolve=evolve,
)

VERBS = (RETRY,)
