"""Questions to the node that a VM is on, about what only the node knows."""

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
from runtime.bus import replies, requests
from runtime.bus.requests import NobodyThere, Patience, Silent, Unanswered

#: Seconds for a node to answer, on top of what it was asked to wait.
PATIENCE = 5.0


async def located(gateway: Gateway, request: Request) -> tuple[str, str, Vm]:
    """The VM, its node, and its state. Raises Problem: 404, 410, and 409 while it has no node."""
    vm = path_id(request, "vm")
    found = await reads.living(gateway, request, VMS, Ref(path_id(request, "project"), "vm", vm))
    if not found.state.node:
        raise Problem(409, "vm_not_placed", "the VM has no node yet that could be asked")
    return vm, found.state.node, found.state


async def ask(gateway: Gateway, node: str, verb: str, question: Question, wait: float = 0.0) -> Msg:
    """What a node answers. Raises Problem: what the node says, or 503 where it says nothing."""
    try:
        body = question.model_dump_json().encode()
        reply = await requests.ask(gateway.nc, subjects.ask(node, verb), body, Patience(PATIENCE + wait))
    except (NobodyThere, Silent) as error:
        if not gateway.nc.is_connected:
            raise Problem(503, "log_unavailable", LOG_UNAVAILABLE) from error
        detail = f"node {node}, which the VM is on, does not answer; try again once it is back"
        raise Problem(503, "node_unavailable", detail) from error
    except Unanswered as error:
        raise Problem(503, "log_unavailable", LOG_UNAVAILABLE) from error
    if not reply.headers:
        said(node, reply)
    return reply


def said(node: str, reply: Msg) -> replies.Said:
    """What a node's answer in JSON says. Raises Problem: what it refuses; 502 where it failed, or for nonsense."""
    try:
        found = replies.read(reply.data)
    except replies.Nonsense as error:
        raise nonsense(node, str(error)) from error
    if isinstance(found, replies.Refusal):
        if found.status >= 500 and found.status not in (501, 503):
            raise Problem(502, "node_error", f"node {node} could not answer: {found.code}: {found.detail}")
        if found.status not in PASSED_ON:
            raise nonsense(node, f"a refusal with status {found.status}")
        raise Problem(found.status, found.code, found.detail)
    return found


def nonsense(node: str, why: str) -> Problem:
    detail = f"node {node} answered nonsense ({why}); do node and gateway have the same version?"
    return Problem(502, "node_answer_invalid", detail)


async def unless_stopped(gateway: Gateway, asking: Any) -> Msg:
    """Wait for the answer, unless the gateway stops."""
    asked = asyncio.ensure_future(asking)
    stopped = asyncio.create_task(gateway.stop.wait())
    try:
        await asyncio.wait({asked, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise Problem(503, "gateway_stopping", "this gateway is being stopped; ask again")
        found: Msg = asked.result()
        return found
    finally:
        asked.cancel()
        stopped.cancel()
