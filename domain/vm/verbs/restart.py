"""Restart a VM: its guest shuts down, as with `stop`, and boots again."""

from datetime import timedelta

from pydantic import AwareDatetime, Field

from domain.access import VM_OPERATE
from domain.base import replace
from domain.contract import Desired
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import POWER_DEADLINE
from domain.vm.events import VmEvent, VmOperationAccepted, VmStarted
from domain.vm.state import Vm, with_grace, with_pending
from domain.vm.values import Phase
from domain.vm.verb import ACCEPTED, NODE_LOST, NOT_CREATED, WAS_DELETED, Row, VmVerb, accepted

NAME = "restart"
ROW: Row = {
    **NOT_CREATED,
    Phase.RUNNING: ACCEPTED,
    Phase.PAUSED: "resume it first; or stop it by force, then start it",
    Phase.SUSPENDED: "resume it first; or stop it by force, which discards its memory, then start it",
    Phase.STOPPED: "only a running VM can be restarted; use start",
    Phase.FAILED: "only a running VM can be restarted; use start",
    **NODE_LOST,
    Phase.DELETED: WAS_DELETED,
}


class RestartVm(VmOperationCommand):
    force: bool = False
    grace_seconds: float = Field(default=90, ge=0, le=3600)


class VmRestartRequested(VmOperationAccepted):
    TOPIC = "nebula.vm.VmRestartRequested"
    force_after: AwareDatetime


def restart(vm: Vm, command: RestartVm, _: str | None) -> list[VmEvent]:
    grace = timedelta(seconds=0 if command.force else command.grace_seconds)
    return [VmRestartRequested(**accepted(command, grace + POWER_DEADLINE), force_after=command.at + grace)]


def evolve(vm: Vm, event: VmRestartRequested) -> Vm:
    wanted = replace(with_pending(vm, event, NAME), desired=Desired.ON, boots=vm.boots + 1)
    return with_grace(wanted, event.at, event.force_after)


RESTART = VmVerb(
    name=NAME,
    command=RestartVm,
    summary="Restart a VM",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmRestartRequested,
    accepted_by=(VmRestartRequested,),
    fulfilled_by=(VmStarted,),
    row=ROW,
    decide=restart,
    evolve=evolve,
    boots=True,
    reboots=True,
)

VERBS = (RESTART,)
