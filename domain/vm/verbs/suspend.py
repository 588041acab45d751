"""Suspend a VM: its memory is saved on the node's disk, and it is off."""

from domain.access import VM_OPERATE
from domain.base import replace
from domain.contract import Desired
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import POWER_DEADLINE, on_disk
from domain.vm.events import VmEvent, VmOperationAccepted, VmSuspended
from domain.vm.state import Vm, with_pending
from domain.vm.values import Phase
from domain.vm.verb import ACCEPTED, NODE_LOST, NOT_CREATED, WAS_DELETED, Row, VmVerb, accepted

NAME = "suspend"
ROW: Row = {
    **NOT_CREATED,
    Phase.RUNNING: ACCEPTED,
    Phase.PAUSED: ACCEPTED,
    Phase.SUSPENDED: "it is suspended already",
    Phase.STOPPED: "only a VM that runs or is paused can be suspended; start it first",
    Phase.FAILED: "only a VM that runs or is paused can be suspended; start it first",
    **NODE_LOST,
    Phase.DELETED: WAS_DELETED,
}


class SuspendVm(VmOperationCommand):
    """Its memory is saved on the node's disk. Until it is resumed, it uses no memory of the node."""


class VmSuspendRequested(VmOperationAccepted):
    TOPIC = "nebula.vm.VmSuspendRequested"


def suspend(vm: Vm, command: SuspendVm, _: str | None) -> list[VmEvent]:
    return [VmSuspendRequested(**accepted(command, POWER_DEADLINE + on_disk(vm)))]


def evolve(vm: Vm, event: VmSuspendRequested) -> Vm:
    return replace(with_pending(vm, event, NAME), desired=Desired.SUSPENDED)


SUSPEND = VmVerb(
    name=NAME,
    command=SuspendVm,
    summary="Suspend a VM: its memory is saved on the node's disk",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmSuspendRequested,
    accepted_by=(VmSuspendRequested,),
    fulfilled_by=(VmSuspended,),
    row=ROW,
    decide=suspend,
    evolve=evolve,
    harmless_goal="suspended",
)

VERBS = (SUSPEND,)
