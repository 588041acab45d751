"""Delete a VM, with its disks and keys."""

from domain.access import VM_DELETE
from domain.base import replace
from domain.contract import Desired
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import DELETE_DEADLINE
from domain.vm.events import VmDeleted, VmEvent, VmOperationAccepted
from domain.vm.state import Vm, with_pending
from domain.vm.verb import ALWAYS, VmVerb, accepted, refuse_protected

NAME = "delete"


class DeleteVm(VmOperationCommand):
    pass


class VmDeletionRequested(VmOperationAccepted):
    TOPIC = "nebula.vm.VmDeletionRequested"


def delete(vm: Vm, command: DeleteVm, cancels: str | None) -> list[VmEvent]:
    refuse_protected(vm, NAME)
    requested = VmDeletionRequested(**accepted(command, DELETE_DEADLINE, cancels))
    if vm.node is None:
        return [requested, VmDeleted(at=command.at, operation=command.operation)]
    return [requested]


def evolve(vm: Vm, event: VmDeletionRequested) -> Vm:
    return replace(with_pending(vm, event, NAME), desired=Desired.ABSENT)


DELETE = VmVerb(
    name=NAME,
    command=DeleteVm,
    summary="Delete a VM",
    effect=Effect.DELETES,
    permission=VM_DELETE,
    event=VmDeletionRequested,
    accepted_by=(VmDeletionRequested,),
    fulfilled_by=(VmDeleted,),
    row=ALWAYS,
    overtakes=(NAME,),
    while_deleting=True,
    decide=delete,
    evolve=evolve,
)

VERBS = (DELETE,)
