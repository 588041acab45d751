"""Forget a VM: mark it deleted although its lost node cannot confirm that."""

from typing import Annotated

from domain.access import VM_DELETE
from domain.base import Reason, Rejected, replace
from domain.contract import Desired
from domain.references import LOOKED_UP
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import DELETE_DEADLINE
from domain.vm.events import VmDeleted, VmEvent, VmOperationAccepted
from domain.vm.state import Vm, with_pending
from domain.vm.values import WAITING
from domain.vm.verb import (
    ALWAYS,
    Row,
    VmVerb,
    accepted,
    refuse_protected,
    wrong_phase,
)

NAME = "forget"
ROW: Row = {**ALWAYS, **dict.fromkeys(WAITING, "it is on no node; delete it")}


class ForgetVm(VmOperationCommand):
    """Mark a VM deleted whose node is permanently lost."""

    reason: Reason
    node_lost: Annotated[bool, LOOKED_UP]
    folder: Annotated[str | None, LOOKED_UP] = None


class VmForgotten(VmOperationAccepted):
    """The VM of a lost node was marked deleted. If the node comes back, it removes the VM.

    `folder`: the identity of the node's last daemon, whose folder has the VM's disk.
    """

    TOPIC = "nebula.vm.VmForgotten"
    reason: str
    node: str
    epoch: int
    folder: str | None = None


def forget(vm: Vm, command: ForgetVm, cancels: str | None) -> list[VmEvent]:
    if vm.node is None:
        raise wrong_phase(vm, NAME, "it is on no node; delete it")
    if not command.node_lost:
        detail = f"node {vm.node} is not lost; delete the VM, or wait until the node is known to be lost"
        raise Rejected("node_not_lost", detail)
    refuse_protected(vm, NAME)
    forgotten = VmForgotten(
        **accepted(command, DELETE_DEADLINE, cancels),
        node=vm.node,
        epoch=vm.epoch + 1,
        folder=command.folder,
        reason=command.reason,
    )
    return [forgotten, VmDeleted(at=command.at, operation=command.operation, node=vm.node)]


def evolve(vm: Vm, event: VmForgotten) -> Vm:
    return replace(
        with_pending(vm, event, NAME),
        desired=Desired.ABSENT,
        epoch=event.epoch,
        forgotten=event.reason,
        folder=event.folder,
    )


FORGET = VmVerb(
    name=NAME,
    command=ForgetVm,
    summary="Mark a VM deleted whose node is permanently lost",
    effect=Effect.ACTS,
    permission=VM_DELETE,
    event=VmForgotten,
    accepted_by=(VmForgotten,),
    fulfilled_by=(VmDeleted,),
    row=ROW,
    overtakes=(),
    example=lambda _: {"reason": "its node is permanently lost"},
    while_deleting=True,
    decide=forget,
    evolve=evolve,
)

VERBS = (FORGET,)
