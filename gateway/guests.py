"""What a guest says of itself, now: its node asks the agent in it. Of the guest's own making, and no event."""

import json

from starlette.requests import Request
from starlette.responses import Response

from domain.guest import Guest
from gateway.asks import ask, located, unless_stopped
from gateway.problems import Problem
from gateway.reads import answer
from gateway.state import Gateway

#: Seconds that a node may wait for the agent, and for others that it asks before.
AGENT = 30.0


async def guest(gateway: Gateway, request: Request) -> Response:
    """What the agent in a running guest says of it."""
    vm, node, state = await located(gateway, request)
    if state["phase"] != "running":
        raise Problem(409, "wrong_phase", f"the VM is {state['phase']}: only the guest of a running one can be asked")
    reply = await unless_stopped(gateway, ask(gateway, node, "guest", {"vm": vm}, AGENT))
    try:
        said = Guest.model_validate(json.loads(reply.data)["ok"])
    except (ValueError, KeyError, TypeError) as error:
        detail = f"node {node} answered what makes no sense here; do node and gateway have the same version?"
        raise Problem(502, "node_answer_invalid", detail) from error
    return answer(said, {"Cache-Control": "no-store"})
