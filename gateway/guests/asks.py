"""Questions to the node of a VM."""

import asyncio
from typing import Any

from nats.aio.msg import Msg
from starlette.requests import Request

from domain.contract import Question
from domain.vm import Vm
from eventstore.log.envelope import Ref
from gateway.http.parameters import path_id
from gateway.http.problems import LOG_UNAVAILABLE, PASSED_ON, Problem
from gateway.reads import reads
from gateway.state import Gateway
from projections.vms import VMS
from runtime import subjects
from runtime.ask_keys import CHALLENGE, NEW
from runtime.bus import replies, requests
from runtime.bus.requests import NobodyThere, Patience, Silent, Unanswered

#: Seconds for a node to answer, in addition to the wait in the question.
PATIENCE = 5.0


async def located(gateway: Gateway, request: Request) -> tuple[str, str, Vm]:
    """The VM, its node, and its state. Raises Problem: 404, 410, and 409 while it has no node."""
    vm = path_id(request, "vm")
    found = await reads.living(gateway, request, VMS, Ref(path_id(request, "project"), "vm", vm))
    if not found.state.node:
        raise Problem(409, "vm_not_placed", "the VM has no node yet; wait until it is placed")
    return vm, found.state.node, found.state


async def ask(gateway: Gateway, node: str, verb: str, question: Question, wait: float = 0.0) -> Msg:
    """The answer of a node. A node that has its key gives a challenge first, for which this gateway signs the question.

    Raises Problem: the node's refusal, or 503 if it does not answer; NoKeyring if there is no key to sign with.
    """
    subject, body, patience = subjects.ask(node, verb), question.model_dump_json().encode(), Patience(PATIENCE + wait)
    try:
        reply = await requests.ask(gateway.nc, subject, body, patience, {CHALLENGE: NEW})
        challenge = (reply.headers or {}).get(CHALLENGE, NEW)
        if challenge != NEW:  # an earlier version answers with the headers of the question
            headers = gateway.event_keys.sign_ask(subject, challenge, body)
            reply = await requests.ask(gateway.nc, subject, body, patience, headers)
    except (NobodyThere, Silent) as error:
        if not gateway.nc.is_connected:
            raise Problem(503, "log_unavailable", LOG_UNAVAILABLE) from error
        detail = f"the VM's node {node} does not answer; try again when it is back"
        raise Problem(503, "node_unavailable", detail) from error
    except Unanswered as error:
        raise Problem(503, "log_unavailable", LOG_UNAVAILABLE) from error
    except ValueError as error:
        raise invalid_answer(node, str(error)) from error
    if not reply.headers or CHALLENGE in reply.headers:
        read(node, reply)
    return reply


def read(node: str, reply: Msg) -> replies.Result:
    """Read a node's JSON answer. Raises Problem: its refusal; 502 if it failed, or if the answer is invalid."""
    try:
        found = replies.read(reply.data)
    except replies.InvalidReply as error:
        raise invalid_answer(node, str(error)) from error
    if isinstance(found, replies.Refusal):
        if found.status >= 500 and found.status not in (501, 503):
            raise Problem(502, "node_error", f"node {node} could not answer: {found.code}: {found.detail}")
        if found.status not in PASSED_ON:
            raise invalid_answer(node, f"a refusal with status {found.status}")
        raise Problem(found.status, found.code, found.detail)
    return found


def invalid_answer(node: str, why: str) -> Problem:
    detail = f"the answer of node {node} is invalid ({why}); do node and gateway have the same version?"
    return Problem(502, "node_answer_invalid", detail)


async def unless_stopped(gateway: Gateway, asking: Any) -> Msg:
    """Wait for the answer, unless the gateway stops."""
    question = asyncio.ensure_future(asking)
    stopped = asyncio.create_task(gateway.stop.wait())
    try:
        await asyncio.wait({question, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not question.done():
            raise Problem(503, "gateway_stopping", "this gateway is being stopped; try again")
        found: Msg = question.result()
        return found
    finally:
        question.cancel()
        stopped.cancel()
