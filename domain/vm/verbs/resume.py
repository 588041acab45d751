"""Resume a VM: it continues after a pause or a suspension, in the same boot."""

from domain.access import VM_OPERATE
from domain.base import replace
from domain.contract import Desired
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import POWER_DEADLINE, on_disk
from domain.vm.events import VmEvent, VmOperationAccepted, VmResumed
from domain.vm.state import Vm, with_pending
from domain.vm.values import Phase
from domain.vm.verb import ACCEPTED, NODE_LOST, NOT_CREATED, WAS_DELETED, Row, VmVerb, accepted

NAME = "resume"
ROW: Row = {
    **NOT_CREATED,
    Phase.RUNNING: "it runs already",
    Phase.PAUSED: ACCEPTED,
    Phase.SUSPENDED: ACCEPTED,
    Phase.STOPPED: "it is off, and its memory is not saved; use start",
    Phase.FAILED: "its memory is not saved; use start",
    **NODE_LOST,
    Phase.DELETED: WAS_DELETED,
}


class ResumeVm(VmOperationCommand):
    """Continue after a pause or a suspension, in the same boot."""


class VmResumeRequested(VmOperationAccepted):
    TOPIC = "nebula.vm.VmResumeRequested"


def resume(vm: Vm, command: ResumeVm, _: str | None) -> list[VmEvent]:
    patience = POWER_DEADLINE + on_disk(vm) if vm.phase is Phase.SUSPENDED else POWER_DEADLINE
    return [VmResumeRequested(**accepted(command, patience))]


def evolve(vm: Vm, event: VmResumeRequested) -> Vm:
    return replace(with_pending(vm, event, NAME), desired=Desired.ON)


RESUME = VmVerb(
    name=NAME,
    command=ResumeVm,
    summary="Resume a paused or suspended VM",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmResumeRequested,
    accepted_by=(VmResumeRequested,),
    fulfilled_by=(VmResumed,),
    row=ROW,
    decide=resume,
    evolve=evolve,
    harmless_goal="resumed",
)

VERBS = (RESUME,)
