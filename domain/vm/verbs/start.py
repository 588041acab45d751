"""Start a VM: it is desired on, and boots."""

from domain.access import VM_OPERATE
from domain.base import replace
from domain.verb import Effect
from domain.vm.commands import Asked
from domain.vm.deadlines import until_up
from domain.vm.events import VmAsked, VmEvent, VmRestartedByPolicy, VmStarted
from domain.vm.state import Vm, asked, started_anew
from domain.vm.values import Phase
from domain.vm.verb import COMING, GONE, SILENT, YES, Row, VmVerb, accepted

NAME = "start"
ROW: Row = {
    **COMING,
    Phase.RUNNING: "it is running already; use restart to boot it again",
    Phase.PAUSED: "use resume; or, to boot it again, stop it by force, then start it",
    Phase.SUSPENDED: "use resume; or, to boot it again, stop it by force, which discards its memory, then start it",
    Phase.STOPPED: YES,
    Phase.FAILED: YES,
    **SILENT,
    Phase.DELETED: GONE,
}


class StartVm(Asked):
    pass


class VmStartRequested(VmAsked):
    TOPIC = "nebula.vm.VmStartRequested"


def start(vm: Vm, command: StartVm, _: str | None) -> list[VmEvent]:
    return [VmStartRequested(**accepted(command, until_up(vm)))]


def evolve(vm: Vm, event: VmStartRequested) -> Vm:
    return replace(started_anew(asked(vm, event, NAME)), restarts=0)


START = VmVerb(
    name=NAME,
    command=StartVm,
    summary="Start a VM",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmStartRequested,
    opens=(VmStartRequested, VmRestartedByPolicy),
    fulfilled_by=(VmStarted,),
    row=ROW,
    decide=start,
    evolve=evolve,
    comes_up=True,
    boots=True,
)

VERBS = (START,)
