"""Abandon: give up the pending operation; the VM stays what it is."""

from datetime import timedelta

from pydantic import AwareDatetime

from domain.access import VM_OPERATE
from domain.base import replace
from domain.contract import Desired
from domain.verb import AT_ONCE, Effect
from domain.vm.commands import Asked
from domain.vm.deadlines import GRACE
from domain.vm.events import VmAsked, VmEvent
from domain.vm.state import Vm, graceful, known
from domain.vm.values import AT_REST, WAITING, Failure, Phase
from domain.vm.verb import GONE, Row, VmVerb, accepted, verb_named
from domain.vm.verbs import delete

NAME = "abandon"
ROW: Row = {**dict.fromkeys(Phase, "no operation on it is pending"), Phase.DELETED: GONE}


class AbandonVm(Asked):
    """Give up the pending operation; the VM stays what it is."""


class VmAbandoned(VmAsked):
    """Nobody waits any more for the operation that `cancels` names. What it still brings up ends by `force_after`."""

    TOPIC = "nebula.vm.VmAbandoned"
    verb: str
    force_after: AwareDatetime


def abandon(vm: Vm, command: AbandonVm, given_up: str | None) -> list[VmEvent]:
    assert vm.pending is not None, "only what is pending is admitted"
    asked_for = accepted(command, timedelta(), given_up)
    return [VmAbandoned(**asked_for, verb=vm.pending.verb, force_after=command.at + GRACE)]


def evolve(vm: Vm, event: VmAbandoned) -> Vm:
    """What never came up is failed and no longer wanted; anything else is wanted as it is."""
    over = replace(vm, pending=None, preparing=None, operations=known(vm, event, NAME))
    if vm.phase in (*WAITING, Phase.SCHEDULED):
        detail = f"{event.verb} was abandoned; start it to try again, or delete it"
        failure = Failure(code="abandoned", detail=detail, at=event.at)
        return replace(over, phase=Phase.FAILED, desired=Desired.OFF, failure=failure)
    given_up = verb_named(event.verb)
    coming = given_up is not None and given_up.comes_up
    desired = AT_REST.get(vm.phase, Desired.OFF if coming else vm.desired)
    return graceful(replace(over, desired=desired), event.at, event.force_after if desired is Desired.OFF else None)


ABANDON = VmVerb(
    name=NAME,
    command=AbandonVm,
    summary="Give up the pending operation of a VM",
    effect=Effect.ACTS,
    permission=VM_OPERATE,
    event=VmAbandoned,
    opens=(VmAbandoned,),
    fulfilled_by=AT_ONCE,
    row=ROW,
    overtakes=(delete.NAME,),
    decide=abandon,
    evolve=evolve,
)
