"""All reads, and the description of all calls."""

from collections.abc import Collection
from functools import cache

from starlette.requests import Request
from starlette.responses import Response

from domain.access import KNOWN, OPEN
from domain.kinds import KINDS
from gateway.access import auth
from gateway.commands.actions import ACTIONS, Action, collection
from gateway.openapi import openapi
from gateway.reads.read import Read
from gateway.state import Gateway
from gateway.table import callers, events, images, nodes, operations, parked, platform, projects, vms
from gateway.table.kinds import reads_of


async def description(_: Gateway, __: Request) -> Response:
    """The OpenAPI document."""
    return Response(described(), media_type="application/json")


@cache
def described() -> bytes:
    """The OpenAPI document of all calls."""
    return openapi.document(READS, ACTIONS)


OWN_READS = (
    *vms.READS,
    *operations.READS,
    *projects.READS,
    *images.READS,
    *events.READS,
    *callers.READS,
    *nodes.READS,
    *parked.READS,
    *platform.READS,
    Read("/v1/openapi.json", OPEN, description, "This description"),
)
_OWN = {read.path for read in OWN_READS}
READS = (
    *OWN_READS,
    *(read for kind in KINDS.values() if collection(kind) not in _OWN for read in reads_of(kind)),
)
"""All reads. A kind without reads of its own gets the two of `reads_of`."""


def check(calls: Collection[Read | Action]) -> None:
    """Raises TypeError for a call without a known permission. No gateway starts with such a call."""
    wrong = [f"{call.method} {call.path} needs {call.permission}" for call in calls if call.permission not in KNOWN]
    if wrong:
        raise TypeError(f"not a permission of domain/access.py: {'; '.join(wrong)}")
    without = {call.path for call in calls if call.permission == OPEN}
    if without != auth.OPEN:
        raise TypeError(f"these calls need no token in one of two tables: {', '.join(without ^ auth.OPEN)}")


check((*READS, *ACTIONS))
