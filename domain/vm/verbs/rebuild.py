"""Rebuild a VM: it gets a new disk in place of the old one, and boots from it."""

from typing import Annotated

from domain.access import VM_OPERATE
from domain.base import Sealed, Slug, replace
from domain.references import LOOKED_UP, Names
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import CREATE_DEADLINE, PLACEMENT_DEADLINE
from domain.vm.events import VmEvent, VmOperationAccepted, VmStarted
from domain.vm.state import Vm, new_disk, with_new_boot, with_pending
from domain.vm.values import Notice
from domain.vm.verb import ALWAYS, NODE_LOST, NOT_CREATED, Row, VmVerb, accepted

NAME = "rebuild"
ROW: Row = {**ALWAYS, **NOT_CREATED, **NODE_LOST}


class RebuildVm(VmOperationCommand):
    """Replace the disk by a new one; the old data is lost. Fields that are None stay unchanged."""

    image: Annotated[Slug, Names("image")]
    ssh_keys: tuple[str, ...] | None = None
    user_data: Sealed | None = None
    notices: Annotated[tuple[Notice, ...], LOOKED_UP] = ()


class VmRebuildRequested(VmOperationAccepted):
    """Disk number `disk` is to be made from `image`, and earlier disks deleted. For cloud-init it is a new machine."""

    TOPIC = "nebula.vm.VmRebuildRequested"
    image: str
    disk: int
    ssh_keys: tuple[str, ...] = ()
    user_data: Sealed | None = None
    notices: tuple[Notice, ...] = ()


def rebuild(vm: Vm, command: RebuildVm, _: str | None) -> list[VmEvent]:
    return [
        VmRebuildRequested(
            **accepted(command, CREATE_DEADLINE if vm.node else PLACEMENT_DEADLINE),
            image=command.image,
            disk=vm.disk + 1,
            ssh_keys=vm.ssh_keys if command.ssh_keys is None else command.ssh_keys,
            user_data=command.user_data or vm.user_data,
            notices=command.notices if command.user_data else vm.notices,
        )
    ]


def evolve(vm: Vm, event: VmRebuildRequested) -> Vm:
    return replace(
        new_disk(with_new_boot(with_pending(vm, event, NAME)), event.disk, event.image),
        ssh_keys=event.ssh_keys,
        user_data=event.user_data,
        notices=event.notices,
    )


REBUILD = VmVerb(
    name=NAME,
    command=RebuildVm,
    summary="Give a VM a new disk; the old one is lost",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmRebuildRequested,
    accepted_by=(VmRebuildRequested,),
    fulfilled_by=(VmStarted,),
    row=ROW,
    example=lambda vm: {"image": vm.image},
    decide=rebuild,
    evolve=evolve,
    starts=True,
    boots=True,
    reboots=True,
)

VERBS = (REBUILD,)
