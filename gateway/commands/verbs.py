"""The verbs that a caller may use on a VM: whether each is accepted now, or why not."""

from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.accepted_requests import AcceptedRequest
from domain.access import SYSTEM as SYSTEM_ACTOR
from domain.base import Rejected, replace
from domain.kind import SYSTEM
from domain.principal import sort_of
from domain.vm import Vm
from domain.vm.offers import can_be_forced, refusal
from domain.vm.verb import AnyVerb, verb_named
from domain.vm.verbs import start
from domain.vm.verbs.stop import BY_POLICY
from eventstore.log.envelope import Ref
from gateway.commands import bodies
from gateway.commands.actions import ACTIONS, Action
from gateway.http.parameters import path_id
from gateway.reads.reads import answer, living
from gateway.state import Gateway, caller, rows_reflect
from projections import aggregates, operation_rows
from projections.nodes import NODES
from projections.vms import VMS


class JudgedView(TypedDict):
    """Whether a command is accepted now. If not: the code of its refusal, and why, in words."""

    accepted: bool
    code: str | None
    why: str | None


class VerbView(JudgedView):
    """A verb, with the call that it is. `forced`: the same with `force`; null if it cannot be forced.

    `needs`: fields that the body has to have. `needs_one_of`: fields of which it has to have at least one.
    """

    verb: str
    method: str
    path: str
    summary: str
    permission: str
    needs: list[str]
    needs_one_of: list[str]
    forced: JudgedView | None


class VerbsView(TypedDict):
    """The verbs of a VM. `version` is that of the VM by which they were judged, `position` that of the log."""

    vm: str
    phase: str
    version: int
    items: list[VerbView]
    position: int


CALLS: tuple[tuple[Action, AnyVerb], ...] = tuple(
    (action, verb)
    for action in ACTIONS
    if action.kind == "vm" and not action.creates and (verb := verb_named(action.verb)) is not None
)
"""The calls on a VM, and the verb of each."""


async def verbs(gateway: Gateway, request: Request) -> Response:
    """The verbs of a VM that the caller has the permission for. Raises Problem: 404, 410."""
    ref = Ref(path_id(request, "project"), "vm", path_id(request, "vm"))
    found = await living(gateway, request, VMS, ref)
    vm, access = await with_pending(gateway, found.state), caller(request).identity.access
    lost, position = await node_lost(gateway, vm)
    rows_reflect(request, position)
    now, known = datetime.now(UTC), {"node_lost": lost}
    items = [
        offered(action, verb, vm, now, known) for action, verb in CALLS if access.may(action.permission, ref.project)
    ]
    view: VerbsView = {
        "vm": vm.id,
        "phase": vm.phase.value,
        "version": found.version,
        "items": items,
        "position": position,
    }
    return answer(view)


async def with_pending(gateway: Gateway, vm: Vm) -> Vm:
    """The VM with what the rules need to know of its pending operation, which its row does not have: whether it is an
    automatic restart.
    """
    if vm.pending is None:
        return vm
    by_policy = False
    if vm.pending.verb == start.NAME:
        operation, _ = await operation_rows.get(gateway.pool, vm.pending.operation, mine=None)
        by_policy = operation is not None and sort_of(operation["actor"]) == SYSTEM_ACTOR
    known = AcceptedRequest(vm.pending.verb, BY_POLICY if by_policy else "")
    return replace(vm, operations=vm.operations.insert(vm.pending.operation, known))


async def node_lost(gateway: Gateway, vm: Vm) -> tuple[bool, int]:
    """Whether the VM's node is lost, and the log position that this reflects."""
    node, position = await aggregates.get(gateway.pool, NODES, Ref(SYSTEM, "node", vm.node or ""), mine=None)
    return node is not None and node.state.lost, position


def offered(action: Action, verb: AnyVerb, vm: Vm, now: datetime, known: Mapping[str, object]) -> VerbView:
    """One verb, judged plain and by force."""
    body = action.body
    changes = issubclass(body, bodies.Change)
    forced = judged(refusal(vm, verb, now, known, force=True)) if can_be_forced(verb) else None
    return {
        "verb": action.verb,
        "method": action.method,
        "path": action.path.format(project=vm.project, vm=vm.id),
        "summary": action.summary,
        "permission": action.permission,
        **judged(refusal(vm, verb, now, known)),
        "needs": [name for name, field in body.model_fields.items() if field.is_required()],
        "needs_one_of": [*body.model_fields] if changes else [],
        "forced": forced,
    }


def judged(refused: Rejected | None) -> JudgedView:
    if refused is None:
        return {"accepted": True, "code": None, "why": None}
    return {"accepted": False, "code": refused.code, "why": refused.detail}
