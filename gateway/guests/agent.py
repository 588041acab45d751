"""Information from the agent in a guest, which the guest's node asks. It may be wrong, and is not an event."""

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from domain.contract import Question
from domain.guest import Guest
from domain.vm import Phase
from gateway.guests.asks import ask, invalid_answer, located, read, unless_stopped
from gateway.http.problems import Problem
from gateway.reads.reads import answer
from gateway.state import Gateway

#: Seconds for the agent's answer, including the node's wait for earlier questions.
AGENT = 30.0


async def guest(gateway: Gateway, request: Request) -> Response:
    """The information from the agent in a running guest."""
    vm, node, state = await located(gateway, request)
    if state.phase is not Phase.RUNNING:
        raise Problem(
            409, "wrong_phase", f"the VM is {state.phase}: its guest can be asked only while the VM is running"
        )
    reply = await unless_stopped(gateway, ask(gateway, node, "guest", Question(vm=vm), AGENT))
    try:
        found = Guest.model_validate(read(node, reply))
    except ValidationError as error:
        raise invalid_answer(node, f"{error.error_count()} fields of a guest are wrong") from error
    if found == Guest():
        detail = "the guest's agent gave no answer: try again, or restart qemu-guest-agent in the guest"
        raise Problem(409, "guest_agent_silent", detail)
    return answer(found, {"Cache-Control": "no-store"})
