"""Stop a VM: its guest shuts down, or it is powered off by force."""

from datetime import timedelta

from pydantic import AwareDatetime, Field

from domain.access import VM_OPERATE
from domain.base import replace
from domain.contract import Desired
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import POWER_DEADLINE
from domain.vm.events import VmEvent, VmOperationAccepted, VmStopped
from domain.vm.state import Vm, with_grace, with_pending
from domain.vm.values import STARTED_AGAIN, Phase
from domain.vm.verb import ACCEPTED, NODE_LOST, NOT_CREATED, WAS_DELETED, Row, VmVerb, accepted
from domain.vm.verbs import create, delete

NAME = "stop"
ROW: Row = {
    **NOT_CREATED,
    Phase.RUNNING: ACCEPTED,
    Phase.PAUSED: "a paused guest cannot shut itself down; resume it first, or stop it by force",
    Phase.SUSPENDED: "resume it first; or stop it by force, which discards its memory",
    Phase.STOPPED: "it is off already",
    Phase.FAILED: "it failed, and does not run; start it to try again, or delete it",
    **NODE_LOST,
    Phase.DELETED: WAS_DELETED,
}
#: The fingerprint of the operations of automatic restarts.
BY_POLICY = "restart_policy"


class StopVm(VmOperationCommand):
    force: bool = False
    grace_seconds: float = Field(default=90, ge=0, le=3600)


class VmStopRequested(VmOperationAccepted):
    """The guest may shut down until `force_after`; then the VM is powered off."""

    TOPIC = "nebula.vm.VmStopRequested"
    force_after: AwareDatetime


def stop(vm: Vm, command: StopVm, cancels: str | None) -> list[VmEvent]:
    grace = timedelta(seconds=0 if command.force else command.grace_seconds)
    return [VmStopRequested(**accepted(command, grace + POWER_DEADLINE, cancels), force_after=command.at + grace)]


def forced(vm: Vm, command: StopVm) -> bool:
    """Whether it is forced: by the caller, or because an automatic restart is pending."""
    by_policy = vm.pending is not None and vm.operations[vm.pending.operation].fingerprint == BY_POLICY
    return command.force or by_policy


def stay_off(vm: Vm, command: StopVm) -> list[VmEvent] | None:
    """The special case of a VM that is off and waits for an automatic restart: the stop cancels the restart."""
    if vm.restart_at is None or vm.phase not in STARTED_AGAIN or vm.pending is not None:
        return None
    requested = VmStopRequested(**accepted(command, POWER_DEADLINE), force_after=command.at)
    stopped = VmStopped(
        at=command.at,
        operation=command.operation,
        node=vm.node or "",
        sequence=vm.sequence,
        cause="requested",
    )
    return [requested, stopped]


def evolve(vm: Vm, event: VmStopRequested) -> Vm:
    wanted = replace(with_pending(vm, event, NAME), desired=Desired.OFF)
    return with_grace(wanted, event.at, event.force_after)


STOP = VmVerb(
    name=NAME,
    command=StopVm,
    summary="Stop a VM",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmStopRequested,
    accepted_by=(VmStopRequested,),
    fulfilled_by=(VmStopped,),
    row=ROW,
    forced={**ROW, Phase.PAUSED: ACCEPTED, Phase.SUSPENDED: ACCEPTED},
    by_force=forced,
    overtakes=(create.NAME, delete.NAME),
    only_by_force=True,
    special_case=stay_off,
    decide=stop,
    evolve=evolve,
)

VERBS = (STOP,)
