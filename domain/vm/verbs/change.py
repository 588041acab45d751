"""Change the name, tags, labels and other descriptive fields of a VM, at any time. It is done when it is accepted."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from domain.access import VM_EDIT
from domain.base import Hostname, Labels, Remark, Tags, replace
from domain.contract import Desired, Watchdog
from domain.references import Names
from domain.verb import ON_ACCEPTANCE, Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.events import VmEvent, VmOperationAccepted
from domain.vm.state import Vm, with_operation
from domain.vm.values import RestartPolicy
from domain.vm.verb import ALWAYS, VmVerb, accepted, wrong_phase

NAME = "change"


class ChangeVm(VmOperationCommand):
    """Fields that are None stay unchanged; tags and labels are replaced as a whole."""

    name: Hostname | None = None
    tags: Annotated[Tags | None, Names("tag")] = None
    labels: Labels | None = None
    protected: bool | None = None
    restart_policy: RestartPolicy | None = None
    watchdog: Watchdog | None = None
    description: Remark | None = None


class VmChanged(VmOperationAccepted):
    """Fields that are None stay unchanged."""

    TOPIC = "nebula.vm.VmChanged"
    name: str | None = None
    tags: tuple[str, ...] | None = None
    labels: dict[str, str] | None = None
    protected: bool | None = None
    restart_policy: RestartPolicy | None = None
    watchdog: Watchdog | None = Field(default=None, description="from its next start on")
    description: str | None = Field(default=None, description="an empty one removes the earlier one")


def change(vm: Vm, command: ChangeVm, _: str | None) -> list[VmEvent]:
    if command.protected and vm.desired is Desired.ABSENT:
        raise wrong_phase(vm, NAME, "it is being deleted, so it cannot be protected any more; leave `protected` out")
    return [
        VmChanged(
            **accepted(command, timedelta()),
            name=command.name,
            tags=command.tags,
            labels=command.labels,
            protected=command.protected,
            restart_policy=command.restart_policy,
            watchdog=command.watchdog,
            description=command.description,
        )
    ]


def evolve(vm: Vm, event: VmChanged) -> Vm:
    return replace(
        with_operation(vm, event, NAME),
        name=vm.name if event.name is None else event.name,
        tags=vm.tags if event.tags is None else event.tags,
        labels=vm.labels if event.labels is None else event.labels,
        protected=vm.protected if event.protected is None else event.protected,
        restart_policy=event.restart_policy or vm.restart_policy,
        restart_at=None if event.restart_policy is RestartPolicy.NO else vm.restart_at,
        watchdog=event.watchdog or vm.watchdog,
        description=vm.description if event.description is None else event.description,
    )


CHANGE = VmVerb(
    name=NAME,
    command=ChangeVm,
    summary="Change a VM: its name, tags, labels, description, protection",
    effect=Effect.CHANGES,
    permission=VM_EDIT,
    event=VmChanged,
    accepted_by=(VmChanged,),
    fulfilled_by=ON_ACCEPTANCE,
    row=ALWAYS,
    always_accepted=True,
    decide=change,
    evolve=evolve,
)

VERBS = (CHANGE,)
