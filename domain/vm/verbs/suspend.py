"""Suspend a VM: its memory is saved on the node's disk, and it is off."""

from domain.access import VM_OPERATE
from domain.base import replace
from domain.contract import Desired
from domain.verb import Effect
from domain.vm.commands import Asked
from domain.vm.deadlines import POWER_DEADLINE, on_disk
from domain.vm.events import VmAsked, VmEvent, VmSuspended
from domain.vm.state import Vm, asked
from domain.vm.values import Phase
from domain.vm.verb import COMING, GONE, SILENT, YES, Row, VmVerb, accepted

NAME = "suspend"
ROW: Row = {
    **COMING,
    Phase.RUNNING: YES,
    Phase.PAUSED: YES,
    Phase.SUSPENDED: "it is suspended already",
    Phase.STOPPED: "only a VM that runs or is paused can be suspended; start it first",
    Phase.FAILED: "only a VM that runs or is paused can be suspended; start it first",
    **SILENT,
    Phase.DELETED: GONE,
}


class SuspendVm(Asked):
    """Its memory is saved on the node's disk. Until it is resumed, it uses no memory of the node."""


class VmSuspendRequested(VmAsked):
    TOPIC = "nebula.vm.VmSuspendRequested"


def suspend(vm: Vm, command: SuspendVm, _: str | None) -> list[VmEvent]:
    return [VmSuspendRequested(**accepted(command, POWER_DEADLINE + on_disk(vm)))]


def evolve(vm: Vm, event: VmSuspendRequested) -> Vm:
    return replace(asked(vm, event, NAME), desired=Desired.SUSPENDED)


SUSPEND = VmVerb(
    name=NAME,
    command=SuspendVm,
    summary="Suspend a VM: its memory is saved on the node's disk",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmSuspendRequested,
    opens=(VmSuspendRequested,),
    fulfilled_by=(VmSuspended,),
    row=ROW,
    decide=suspend,
    evolve=evolve,
    harmless="suspended",
)

VERBS = (SUSPEND,)
