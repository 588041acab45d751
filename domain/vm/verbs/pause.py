"""Pause a VM: its CPUs are stopped; memory, disk and addresses stay."""

from domain.access import VM_OPERATE
from domain.base import replace
from domain.contract import Desired
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import POWER_DEADLINE
from domain.vm.events import VmEvent, VmOperationAccepted, VmPaused
from domain.vm.state import Vm, with_pending
from domain.vm.values import Phase
from domain.vm.verb import ACCEPTED, NODE_LOST, NOT_CREATED, WAS_DELETED, Row, VmVerb, accepted

NAME = "pause"
ROW: Row = {
    **NOT_CREATED,
    Phase.RUNNING: ACCEPTED,
    Phase.PAUSED: "it is paused already",
    Phase.SUSPENDED: "its memory is on disk; resume it first",
    Phase.STOPPED: "only a running VM can be paused; start it first",
    Phase.FAILED: "only a running VM can be paused; start it first",
    **NODE_LOST,
    Phase.DELETED: WAS_DELETED,
}


class PauseVm(VmOperationCommand):
    """Its CPUs are stopped; memory, disk and addresses stay."""


class VmPauseRequested(VmOperationAccepted):
    TOPIC = "nebula.vm.VmPauseRequested"


def pause(vm: Vm, command: PauseVm, _: str | None) -> list[VmEvent]:
    return [VmPauseRequested(**accepted(command, POWER_DEADLINE))]


def evolve(vm: Vm, event: VmPauseRequested) -> Vm:
    return replace(with_pending(vm, event, NAME), desired=Desired.PAUSED)


PAUSE = VmVerb(
    name=NAME,
    command=PauseVm,
    summary="Pause a VM: its CPUs are stopped",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmPauseRequested,
    accepted_by=(VmPauseRequested,),
    fulfilled_by=(VmPaused,),
    row=ROW,
    decide=pause,
    evolve=evolve,
    harmless_goal="paused",
)

VERBS = (PAUSE,)
