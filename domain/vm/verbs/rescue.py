"""Rescue a VM: it boots from a rescue disk, with its own disk as the second. Unrescue: it boots from its own again."""

from datetime import timedelta
from typing import Annotated

from pydantic import AwareDatetime, Field

from domain.access import VM_OPERATE
from domain.base import Rejected, Slug, replace
from domain.references import Names
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import CREATE_DEADLINE, POWER_DEADLINE
from domain.vm.events import VmEvent, VmOperationAccepted, VmStarted
from domain.vm.state import Vm, own_disk, with_grace, with_new_boot, with_pending
from domain.vm.values import Phase
from domain.vm.verb import ACCEPTED, NODE_LOST, NOT_CREATED, WAS_DELETED, Row, VmVerb, accepted

NAME, BACK = "rescue", "unrescue"
ROW: Row = {
    **NOT_CREATED,
    Phase.RUNNING: ACCEPTED,
    Phase.PAUSED: "resume it first, or stop it by force",
    Phase.SUSPENDED: "resume it first, or stop it by force, which discards its memory",
    Phase.STOPPED: ACCEPTED,
    Phase.FAILED: ACCEPTED,
    **NODE_LOST,
    Phase.DELETED: WAS_DELETED,
}


class RescueVm(VmOperationCommand):
    """Boot from a new disk made from `image` (None: the VM's image). A running guest is shut down first, as by stop."""

    image: Annotated[Slug | None, Names("image")] = None
    force: bool = False
    grace_seconds: float = Field(default=90, ge=0, le=3600)


class UnrescueVm(VmOperationCommand):
    """Boot from its own disk again; the rescue disk is deleted."""

    force: bool = False
    grace_seconds: float = Field(default=90, ge=0, le=3600)


class VmRescueRequested(VmOperationAccepted):
    """From now on it boots from a new disk, made from `image`, until it is unrescued."""

    TOPIC = "nebula.vm.VmRescueRequested"
    image: str
    force_after: AwareDatetime


class VmUnrescueRequested(VmOperationAccepted):
    TOPIC = "nebula.vm.VmUnrescueRequested"
    force_after: AwareDatetime


def rescue(vm: Vm, command: RescueVm, _: str | None) -> list[VmEvent]:
    """Whether its node can boot the image is checked in `handlers/commands/lookups.py`, in the same append."""
    if vm.rescue is not None:
        raise Rejected("in_rescue", f"it is in rescue already, from image {vm.rescue}; unrescue it first")
    if vm.disk_made < vm.disk:
        raise Rejected("disk_missing", "it never ran on its disk, so there is nothing to rescue; start or rebuild it")
    grace = grace_of(command)
    fields = accepted(command, grace + CREATE_DEADLINE)
    return [VmRescueRequested(**fields, image=command.image or vm.image, force_after=command.at + grace)]


def unrescue(vm: Vm, command: UnrescueVm, _: str | None) -> list[VmEvent]:
    if vm.rescue is None:
        raise Rejected("not_in_rescue", "it is not in rescue: it boots from its own disk; use start or restart")
    grace = grace_of(command)
    return [VmUnrescueRequested(**accepted(command, grace + POWER_DEADLINE), force_after=command.at + grace)]


def grace_of(command: RescueVm | UnrescueVm) -> timedelta:
    return timedelta(seconds=0 if command.force else command.grace_seconds)


def evolve(vm: Vm, event: VmRescueRequested) -> Vm:
    booting = with_grace(with_new_boot(with_pending(vm, event, NAME)), event.at, event.force_after)
    return replace(booting, rescue=event.image, rescue_disk=booting.boots, host_keys=(), restarts=0)


def evolve_back(vm: Vm, event: VmUnrescueRequested) -> Vm:
    booting = with_grace(with_new_boot(with_pending(vm, event, BACK)), event.at, event.force_after)
    return replace(own_disk(booting), host_keys=(), restarts=0)


RESCUE = VmVerb(
    name=NAME,
    command=RescueVm,
    summary="Boot a VM from a rescue image, with its own disk as the second one",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmRescueRequested,
    accepted_by=(VmRescueRequested,),
    fulfilled_by=(VmStarted,),
    row=ROW,
    decide=rescue,
    evolve=evolve,
    starts=True,
    boots=True,
    reboots=True,
)

UNRESCUE = VmVerb(
    name=BACK,
    command=UnrescueVm,
    summary="Boot a VM from its own disk again, and delete the rescue disk",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmUnrescueRequested,
    accepted_by=(VmUnrescueRequested,),
    fulfilled_by=(VmStarted,),
    row=ROW,
    decide=unrescue,
    evolve=evolve_back,
    starts=True,
    boots=True,
    reboots=True,
)

VERBS = (RESCUE, UNRESCUE)
