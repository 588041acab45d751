"""Decides what follows from a placement: the VM gets a node, waits for one, or fails."""

from domain.vm.commands import DeferVm, DropVm, ScheduleVm
from domain.vm.deadlines import CREATE_DEADLINE
from domain.vm.events import VmDeleted, VmEvent, VmFailed, VmScheduled, VmUnschedulable
from domain.vm.state import Vm
from domain.vm.values import WAITING, Phase


def schedule(vm: Vm, command: ScheduleVm) -> list[VmEvent]:
    if vm.phase not in WAITING:
        return []
    return [
        VmScheduled(
            at=command.at,
            operation=vm.pending.operation if vm.pending else None,
            node=command.node,
            epoch=vm.epoch + 1,
            deadline=command.at + CREATE_DEADLINE,
            considered=command.considered,
            mac=command.mac,
        )
    ]


def defer(vm: Vm, command: DeferVm) -> list[VmEvent]:
    if vm.phase not in WAITING or (vm.phase is Phase.UNSCHEDULABLE and vm.considered == command.considered):
        return []
    operation = vm.pending.operation if vm.pending else None
    return [VmUnschedulable(at=command.at, operation=operation, considered=command.considered)]


def drop(vm: Vm, command: DropVm) -> list[VmEvent]:
    if vm.phase not in WAITING:
        return []
    operation = vm.pending.operation if vm.pending else None
    failed = VmFailed(at=command.at, operation=operation, code=command.code, detail=command.detail)
    return [failed, VmDeleted(at=command.at)]
