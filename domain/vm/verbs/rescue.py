"""Rescue a VM: it boots from a disk of its own that is made for this, with its own disk as the second one; and back."""

from datetime import timedelta
from typing import Annotated

from pydantic import AwareDatetime, Field

from domain.access import VM_OPERATE
from domain.base import Rejected, Slug, replace
from domain.references import Names
from domain.verb import Effect
from domain.vm.commands import Asked
from domain.vm.deadlines import CREATE_DEADLINE, POWER_DEADLINE
from domain.vm.events import VmAsked, VmEvent, VmStarted
from domain.vm.state import Vm, asked, graceful, own_disk, started_anew
from domain.vm.values import Phase
from domain.vm.verb import COMING, GONE, SILENT, YES, Row, VmVerb, accepted

NAME, BACK = "rescue", "unrescue"
ROW: Row = {
    **COMING,
    Phase.RUNNING: YES,
    Phase.PAUSED: "resume it first, or stop it by force",
    Phase.SUSPENDED: "resume it first, or stop it by force, which discards its memory",
    Phase.STOPPED: YES,
    Phase.FAILED: YES,
    **SILENT,
    Phase.DELETED: GONE,
}


class RescueVm(Asked):
    """`image`: what it boots from; the VM's own image where it is None. A guest that runs is shut down, as by stop."""

    image: Annotated[Slug | None, Names("image")] = None
    force: bool = False
    grace_seconds: float = Field(default=90, ge=0, le=3600)


class UnrescueVm(Asked):
    """Back to its own disk; the rescue disk is deleted."""

    force: bool = False
    grace_seconds: float = Field(default=90, ge=0, le=3600)


class VmRescueRequested(VmAsked):
    """It is to boot from a new disk, made from `image`, until it is unrescued."""

    TOPIC = "nebula.vm.VmRescueRequested"
    image: str
    force_after: AwareDatetime


class VmUnrescueRequested(VmAsked):
    TOPIC = "nebula.vm.VmUnrescueRequested"
    force_after: AwareDatetime


def rescue(vm: Vm, command: RescueVm, _: str | None) -> list[VmEvent]:
    """Whether its node can boot from the image is judged on the node's books, in the same append."""
    if vm.rescue is not None:
        raise Rejected("in_rescue", f"it is in rescue already, from image {vm.rescue}; unrescue it first")
    if vm.disk_made < vm.disk:
        raise Rejected("disk_missing", "it never ran on its disk, so there is nothing to rescue; start or rebuild it")
    grace = grace_of(command)
    said = accepted(command, grace + CREATE_DEADLINE)
    return [VmRescueRequested(**said, image=command.image or vm.image, force_after=command.at + grace)]


def unrescue(vm: Vm, command: UnrescueVm, _: str | None) -> list[VmEvent]:
    if vm.rescue is None:
        raise Rejected("not_in_rescue", "it is not in rescue: it boots from its own disk; use start or restart")
    grace = grace_of(command)
    return [VmUnrescueRequested(**accepted(command, grace + POWER_DEADLINE), force_after=command.at + grace)]


def grace_of(command: RescueVm | UnrescueVm) -> timedelta:
    return timedelta(seconds=0 if command.force else command.grace_seconds)


def evolve(vm: Vm, event: VmRescueRequested) -> Vm:
    booting = graceful(started_anew(asked(vm, event, NAME)), event.at, event.force_after)
    return replace(booting, rescue=event.image, rescue_disk=booting.boots, host_keys=(), restarts=0)


def evolve_back(vm: Vm, event: VmUnrescueRequested) -> Vm:
    booting = graceful(started_anew(asked(vm, event, BACK)), event.at, event.force_after)
    return replace(own_disk(booting), host_keys=(), restarts=0)


RESCUE = VmVerb(
    name=NAME,
    command=RescueVm,
    summary="Boot a VM from a rescue image, with its own disk as the second one",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmRescueRequested,
    opens=(VmRescueRequested,),
    fulfilled_by=(VmStarted,),
    row=ROW,
    decide=rescue,
    evolve=evolve,
    comes_up=True,
    boots=True,
    anew=True,
)

UNRESCUE = VmVerb(
    name=BACK,
    command=UnrescueVm,
    summary="Boot a VM from its own disk again, and delete the rescue disk",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmUnrescueRequested,
    opens=(VmUnrescueRequested,),
    fulfilled_by=(VmStarted,),
    row=ROW,
    decide=unrescue,
    evolve=evolve_back,
    comes_up=True,
    boots=True,
    anew=True,
)

VERBS = (RESCUE, UNRESCUE)
