"""What a VM or a node used lately: a series that the node keeps. It is not in the log, nor in the read models."""

from datetime import datetime
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.contract import HostUsageQuestion, UsageQuestion
from domain.guest_usage import UsagePoint, UsageSeries, UsageSize
from domain.kind import SYSTEM
from eventstore.log.envelope import Ref
from gateway.guests.asks import ask, invalid_answer, located, read, unless_stopped
from gateway.http import parameters
from gateway.reads import reads
from gateway.reads.reads import answer
from gateway.state import Gateway
from projections.nodes import NODES

#: Parameters of both calls.
PARAMETERS = ("since", "points")

UsageSeriesView = TypedDict(
    "UsageSeriesView",
    {
        "from": datetime,
        "to": datetime,
        "step_seconds": float,
        "size": UsageSize,
        "points": list[UsagePoint],
        "position": int,
    },
)
"""A series: `points` at equal steps, the earliest first. A step of which nothing is known has nulls. `size`: 100 %.

Times are those of the node's clock. `position`: that of the read models, by which the node was found.
"""


async def of_vm(gateway: Gateway, request: Request) -> Response:
    """What a VM used lately. Raises Problem: 404, 410, 409 while it has no node, and those of a question to a node."""
    seconds, points = parameters.since(request), parameters.points(request)
    vm, node, _ = await located(gateway, request)
    return await _series(gateway, request, node, "usage", UsageQuestion(vm=vm, seconds=seconds, points=points))


async def of_node(gateway: Gateway, request: Request) -> Response:
    """What a node used lately. Raises Problem: 404, 410 if it was retired, and those of a question to a node."""
    seconds, points = parameters.since(request), parameters.points(request)
    node = parameters.path_id(request, "node")
    await reads.living(gateway, request, NODES, Ref(SYSTEM, "node", node))
    return await _series(gateway, request, node, "host-usage", HostUsageQuestion(seconds=seconds, points=points))


async def _series(
    gateway: Gateway, request: Request, node: str, verb: str, question: UsageQuestion | HostUsageQuestion
) -> Response:
    reply = await unless_stopped(gateway, ask(gateway, node, verb, question))
    try:
        found = UsageSeries.model_validate(read(node, reply))
    except ValidationError as error:
        raise invalid_answer(node, f"{error.error_count()} fields of a series are wrong") from error
    if len(found.cpu) > question.points:
        raise invalid_answer(node, "more points than were asked for")
    scope: Any = request.scope
    view: UsageSeriesView = {
        "from": found.start,
        "to": found.end,
        "step_seconds": found.step_seconds,
        "size": found.size,
        "points": list(found.points()),
        "position": scope["nebula.reflects"],
    }
    return answer(view, {"Cache-Control": "no-store"})
