"""What a guest says of itself now: its node asks the agent in the guest. The answer may be wrong, and is no event."""

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from domain.contract import Question
from domain.guest import Guest
from domain.vm import Phase
from gateway.guests.asks import ask, located, nonsense, said, unless_stopped
from gateway.http.problems import Problem
from gateway.reads.reads import answer
from gateway.state import Gateway

#: Seconds that a node may wait for the agent, and for others that it asks before.
AGENT = 30.0


async def guest(gateway: Gateway, request: Request) -> Response:
    """What the agent in a running guest says of it."""
    vm, node, state = await located(gateway, request)
    if state.phase is not Phase.RUNNING:
        raise Problem(409, "wrong_phase", f"the VM is {state.phase}: only the guest of a running one can be asked")
    reply = await unless_stopped(gateway, ask(gateway, node, "guest", Question(vm=vm), AGENT))
    try:
        found = Guest.model_validate(said(node, reply))
    except ValidationError as error:
        raise nonsense(node, f"{error.error_count()} fields of a guest are wrong") from error
    if found == Guest():
        detail = "the guest's agent said nothing: ask again, or restart qemu-guest-agent in the guest"
        raise Problem(409, "guest_agent_silent", detail)
    return answer(found, {"Cache-Control": "no-store"})
