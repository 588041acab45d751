"""What a create would do now: handlers judge it, and nothing is stored."""

from typing import NoReturn

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.vm.preview import VmPreview
from gateway.commands import asking, bodies
from gateway.commands.commands import HANDLERS_OUTDATED, passed_on
from gateway.http import content
from gateway.http.parameters import path_id
from gateway.http.problems import Problem
from gateway.reads.reads import answer
from gateway.state import Gateway, reflects
from projections.nodes import Amount
from projections.operation_rows import WarningView, warnings
from projections.vms import ConsideredView, considered
from runtime import subjects
from runtime.bus import requests
from runtime.bus.replies import Refusal

#: The verb of the question on the bus.
VERB = "preview"


class PreviewView(TypedDict):
    """The node that the VM would get now; null: it would wait until there is room.

    `considered`: all nodes, with the reason against each. `warnings`: about its user-data. `size`: also from a flavor.
    """

    node: str | None
    considered: list[ConsideredView]
    warnings: list[WarningView]
    size: Amount
    position: int


async def preview(gateway: Gateway, request: Request) -> Response:
    """What the create with this body would do. Raises the refusal that the create would get."""
    body = bodies.CreateVm.model_validate_json(await content.read(request) or b"{}")
    found = await asked(gateway, request, body)
    reflects(request, found.position)
    view: PreviewView = {
        "node": found.node,
        "considered": [considered(one) for one in found.considered],
        "warnings": warnings(found.warnings),
        "size": {"vcpus": found.size.vcpus, "memory_mib": found.size.memory_mib, "disk_gib": found.size.disk_gib},
        "position": found.position,
    }
    return answer(view)


async def asked(gateway: Gateway, request: Request, body: bodies.CreateVm) -> VmPreview:
    """The answer of handlers. Raises Problem."""
    args = {**body.args(), **({"vm": body.id} if body.id is not None else {})}
    subject = subjects.command(path_id(request, "project"), "vm", VERB)
    try:
        return await asking.asked(gateway, request, subject, args, VmPreview.model_validate)
    except requests.Refused as error:
        refuse(error.refusal)


def refuse(refusal: Refusal) -> NoReturn:
    """Raise the problem for a refusal, with the field as the body names it."""
    if refusal.code == "unknown_command":
        raise Problem(503, "handlers_outdated", HANDLERS_OUTDATED)
    field = refusal.field.removeprefix("spec.") if refusal.field else None
    raise passed_on(refusal.model_copy(update={"field": field}))
