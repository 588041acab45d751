"""Start a VM: it is desired on, and boots."""

from domain.access import VM_OPERATE
from domain.base import replace
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import until_up
from domain.vm.events import VmEvent, VmOperationAccepted, VmRestartedByPolicy, VmStarted
from domain.vm.state import Vm, with_new_boot, with_pending
from domain.vm.values import Phase
from domain.vm.verb import ACCEPTED, NODE_LOST, NOT_CREATED, WAS_DELETED, Row, VmVerb, accepted

NAME = "start"
ROW: Row = {
    **NOT_CREATED,
    Phase.RUNNING: "it is running already; use restart to boot it again",
    Phase.PAUSED: "use resume; or, to boot it again, stop it by force, then start it",
    Phase.SUSPENDED: "use resume; or, to boot it again, stop it by force, which discards its memory, then start it",
    Phase.STOPPED: ACCEPTED,
    Phase.FAILED: ACCEPTED,
    **NODE_LOST,
    Phase.DELETED: WAS_DELETED,
}


class StartVm(VmOperationCommand):
    pass


class VmStartRequested(VmOperationAccepted):
    TOPIC = "nebula.vm.VmStartRequested"


def start(vm: Vm, command: StartVm, _: str | None) -> list[VmEvent]:
    return [VmStartRequested(**accepted(command, until_up(vm)))]


def evolve(vm: Vm, event: VmStartRequested) -> Vm:
    return replace(with_new_boot(with_pending(vm, event, NAME)), restarts=0)


START = VmVerb(
    name=NAME,
    command=StartVm,
    summary="Start a VM",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmStartRequested,
    accepted_by=(VmStartRequested, VmRestartedByPolicy),
    fulfilled_by=(VmStarted,),
    row=ROW,
    decide=start,
    evolve=evolve,
    starts=True,
    boots=True,
)

VERBS = (START,)
