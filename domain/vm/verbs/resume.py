"""Resume a VM: it continues after a pause or a suspension, in the same boot."""

from domain.access import VM_OPERATE
from domain.base import replace
from domain.contract import Desired
from domain.verb import Effect
from domain.vm.commands import Asked
from domain.vm.deadlines import POWER_DEADLINE, on_disk
from domain.vm.events import VmAsked, VmEvent, VmResumed
from domain.vm.state import Vm, asked
from domain.vm.values import Phase
from domain.vm.verb import COMING, GONE, SILENT, YES, Row, VmVerb, accepted

NAME = "resume"
ROW: Row = {
    **COMING,
    Phase.RUNNING: "it runs already",
    Phase.PAUSED: YES,
    Phase.SUSPENDED: YES,
    Phase.STOPPED: "it is off, and its memory is not saved; use start",
    Phase.FAILED: "its memory is not saved; use start",
    **SILENT,
    Phase.DELETED: GONE,
}


class ResumeVm(Asked):
    """Continue after a pause or a suspension, in the same boot."""


class VmResumeRequested(VmAsked):
    TOPIC = "nebula.vm.VmResumeRequested"


def resume(vm: Vm, command: ResumeVm, _: str | None) -> list[VmEvent]:
    patience = POWER_DEADLINE + on_disk(vm) if vm.phase is Phase.SUSPENDED else POWER_DEADLINE
    return [VmResumeRequested(**accepted(command, patience))]


def evolve(vm: Vm, event: VmResumeRequested) -> Vm:
    return replace(asked(vm, event, NAME), desired=Desired.ON)


RESUME = VmVerb(
    name=NAME,
    command=ResumeVm,
    summary="Resume a paused or suspended VM",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmResumeRequested,
    opens=(VmResumeRequested,),
    fulfilled_by=(VmResumed,),
    row=ROW,
    decide=resume,
    evolve=evolve,
    harmless="resumed",
)

VERBS = (RESUME,)
