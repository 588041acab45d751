"""Tag a VM: a verb of earlier versions, which `change` replaces."""

from datetime import timedelta
from typing import Annotated

from domain.access import VM_EDIT
from domain.base import Tags, replace
from domain.references import Names
from domain.verb import ON_ACCEPTANCE, Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.events import VmEvent, VmOperationAccepted
from domain.vm.state import Vm, with_operation
from domain.vm.verb import ALWAYS, VmVerb, accepted

NAME = "tag"


class TagVm(VmOperationCommand):
    tags: Annotated[Tags, Names("tag")]


class VmTagged(VmOperationAccepted):
    TOPIC = "nebula.vm.VmTagged"
    tags: tuple[str, ...]


def tag(_: Vm, command: TagVm, __: str | None) -> list[VmEvent]:
    return [VmTagged(**accepted(command, timedelta()), tags=command.tags)]


def evolve(vm: Vm, event: VmTagged) -> Vm:
    return replace(with_operation(vm, event, NAME), tags=event.tags)


TAG = VmVerb(
    name=NAME,
    command=TagVm,
    summary="Give a VM other tags",
    effect=Effect.NOTES,
    permission=VM_EDIT,
    event=VmTagged,
    accepted_by=(VmTagged,),
    fulfilled_by=ON_ACCEPTANCE,
    row=ALWAYS,
    always_accepted=True,
    decide=tag,
    evolve=evolve,
)

VERBS = (TAG,)
