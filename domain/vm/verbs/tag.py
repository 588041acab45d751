"""Tag a VM: a verb of earlier versions, which `change` replaces."""

from datetime import timedelta
from typing import Annotated

from domain.access import VM_EDIT
from domain.base import Tags, replace
from domain.references import Names
from domain.verb import AT_ONCE, Effect
from domain.vm.commands import Asked
from domain.vm.events import VmAsked, VmEvent
from domain.vm.state import Vm, noted
from domain.vm.verb import ALWAYS, VmVerb, accepted

NAME = "tag"


class TagVm(Asked):
    tags: Annotated[Tags, Names("tag")]


class VmTagged(VmAsked):
    TOPIC = "nebula.vm.VmTagged"
    tags: tuple[str, ...]


def tag(_: Vm, command: TagVm, __: str | None) -> list[VmEvent]:
    return [VmTagged(**accepted(command, timedelta()), tags=command.tags)]


def evolve(vm: Vm, event: VmTagged) -> Vm:
    return replace(noted(vm, event, NAME), tags=event.tags)


TAG = VmVerb(
    name=NAME,
    command=TagVm,
    summary="Give a VM other tags",
    effect=Effect.NOTES,
    permission=VM_EDIT,
    event=VmTagged,
    opens=(VmTagged,),
    fulfilled_by=AT_ONCE,
    row=ALWAYS,
    beside=True,
    decide=tag,
    evolve=evolve,
)

VERBS = (TAG,)
