"""Resize a VM: it has the new size from its next start on."""

from datetime import timedelta

from domain.access import VM_EDIT
from domain.base import Category, Rejected, replace
from domain.verb import ON_ACCEPTANCE, Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.events import VmEvent, VmOperationAccepted
from domain.vm.state import Vm, with_operation
from domain.vm.values import SIZED, DiskGib, MemoryMib, Spec, Vcpus
from domain.vm.verb import ALWAYS, NODE_LOST, NOT_CREATED, Row, VmVerb, accepted

NAME = "resize"
ROW: Row = {**ALWAYS, **NOT_CREATED, **NODE_LOST}


class ResizeVm(VmOperationCommand):
    """Fields that are None stay unchanged. A disk can only grow. The domain has the new size from its next start on."""

    vcpus: Vcpus | None = None
    memory_mib: MemoryMib | None = None
    disk_gib: DiskGib | None = None


class VmResized(VmOperationAccepted):
    """`spec`: the whole size of the VM from its next start on."""

    TOPIC = "nebula.vm.VmResized"
    spec: Spec


def resize(vm: Vm, command: ResizeVm, _: str | None) -> list[VmEvent]:
    """Whether the node has room is checked by `placement.check_resize`; its reservation changes in the same append."""
    if command.vcpus is command.memory_mib is command.disk_gib is None:
        raise Rejected("invalid_request", f"give at least one of {', '.join(Spec.model_fields)}", Category.INVALID)
    if command.disk_gib is not None and command.disk_gib < vm.spec.disk_gib:
        detail = f"the disk has {vm.spec.disk_gib} GiB and can only grow, not shrink to {command.disk_gib} GiB"
        raise Rejected("disk_cannot_shrink", detail, Category.INVALID, field="disk_gib")
    spec = Spec(
        vcpus=command.vcpus or vm.spec.vcpus,
        memory_mib=command.memory_mib or vm.spec.memory_mib,
        disk_gib=command.disk_gib or vm.spec.disk_gib,
    )
    return [VmResized(**accepted(command, timedelta()), spec=spec)]


def evolve(vm: Vm, event: VmResized) -> Vm:
    had = vm.running_size or (vm.spec.resources() if vm.phase in SIZED else None)
    return replace(with_operation(vm, event, NAME), spec=event.spec, running_size=had)


RESIZE = VmVerb(
    name=NAME,
    command=ResizeVm,
    summary="Resize a VM, from its next start on",
    effect=Effect.ACTS,
    permission=VM_EDIT,
    event=VmResized,
    accepted_by=(VmResized,),
    fulfilled_by=ON_ACCEPTANCE,
    row=ROW,
    example=lambda vm: {"disk_gib": vm.spec.disk_gib},
    decide=resize,
    evolve=evolve,
)

VERBS = (RESIZE,)
