"""Abandon: give up the pending operation; the VM stays in its phase."""

from datetime import timedelta

from pydantic import AwareDatetime

from domain.access import VM_OPERATE
from domain.base import replace
from domain.contract import Desired
from domain.verb import ON_ACCEPTANCE, Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import GRACE
from domain.vm.events import VmEvent, VmOperationAccepted
from domain.vm.state import Vm, operations_after, with_grace
from domain.vm.values import AT_REST, WAITING, Failure, Phase
from domain.vm.verb import WAS_DELETED, Row, VmVerb, accepted, verb_named
from domain.vm.verbs import delete

NAME = "abandon"
ROW: Row = {**dict.fromkeys(Phase, "no operation on it is pending"), Phase.DELETED: WAS_DELETED}


class AbandonVm(VmOperationCommand):
    """Give up the pending operation; the VM stays in its phase."""


class VmAbandoned(VmOperationAccepted):
    """The operation `cancels` was given up. If the VM starts nevertheless, it is off again by `force_after`."""

    TOPIC = "nebula.vm.VmAbandoned"
    verb: str
    force_after: AwareDatetime


def abandon(vm: Vm, command: AbandonVm, given_up: str | None) -> list[VmEvent]:
    assert vm.pending is not None, "the row accepts it only while an operation is pending"
    fields = accepted(command, timedelta(), given_up)
    return [VmAbandoned(**fields, verb=vm.pending.verb, force_after=command.at + GRACE)]


def evolve(vm: Vm, event: VmAbandoned) -> Vm:
    """A VM that has never started is failed, and desired off. Any other is desired to stay in its phase."""
    ended = replace(vm, pending=None, preparing=None, operations=operations_after(vm, event, NAME))
    if vm.phase in (*WAITING, Phase.SCHEDULED):
        detail = f"{event.verb} was abandoned; start it to try again, or delete it"
        failure = Failure(code="abandoned", detail=detail, at=event.at)
        return replace(ended, phase=Phase.FAILED, desired=Desired.OFF, failure=failure)
    given_up = verb_named(event.verb)
    starting = given_up is not None and given_up.starts
    desired = AT_REST.get(vm.phase, Desired.OFF if starting else vm.desired)
    return with_grace(replace(ended, desired=desired), event.at, event.force_after if desired is Desired.OFF else None)


ABANDON = VmVerb(
    name=NAME,
    command=AbandonVm,
    summary="Give up the pending operation of a VM",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmAbandoned,
    accepted_by=(VmAbandoned,),
    fulfilled_by=ON_ACCEPTANCE,
    row=ROW,
    overtakes=(delete.NAME,),
    decide=abandon,
    evolve=evolve,
)

VERBS = (ABANDON,)
