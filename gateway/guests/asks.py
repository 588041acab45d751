"""Questions to the node of a VM."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from nats.aio.msg import Msg
from starlette.requests import Request

from domain.contract import HostUsageQuestion, Question
from domain.vm import Vm
from eventstore.log.envelope import Ref
from gateway.http.parameters import path_id
from gateway.http.problems import LOG_UNAVAILABLE, PASSED_ON, Problem
from gateway.reads import reads
from gateway.state import Gateway
from projections import aggregates
from projections.nodes import NODES
from projections.vms import VMS
from runtime import subjects
from runtime.answer_keys import is_answer, session_key
from runtime.ask_keys import CHALLENGE, NEW
from runtime.bus import replies, requests
from runtime.bus.requests import NobodyThere, Patience, Silent, Unanswered

#: Seconds for a node to answer, in addition to the wait in the question.
PATIENCE = 5.0
#: The header of an answer that is a piece of a console log, and no JSON.
CURSOR = "Nebula-Cursor"

SessionKey = Callable[[str], bytes]
"""The key of one direction of a session, by the subject that it goes to."""


async def located(gateway: Gateway, request: Request) -> tuple[str, str, Vm]:
    """The VM, its node, and its state. Raises Problem: 404, 410, and 409 while it has no node."""
    vm = path_id(request, "vm")
    found = await reads.living(gateway, request, VMS, Ref(path_id(request, "project"), "vm", vm))
    if not found.state.node:
        raise Problem(409, "vm_not_placed", "the VM has no node yet; wait until it is placed")
    return vm, found.state.node, found.state


async def ask(
    gateway: Gateway,
    node: str,
    verb: str,
    question: Question | HostUsageQuestion,
    wait: float = 0.0,
    prepare: Callable[[SessionKey], None] = lambda _: None,
) -> Msg:
    """The answer of a node. A node that has its key gives a challenge first, for which this gateway signs the question.
    Then its answer has a MAC. `prepare`: called before the signed question is sent, with the keys of a session.

    Raises Problem: the node's refusal, or 503 if it does not answer, or somebody else does; NoKeyring if there is no
    key to sign with.
    """
    subject, body, patience = subjects.ask(node, verb), question.model_dump_json().encode(), Patience(PATIENCE + wait)
    try:
        reply = await requests.ask(gateway.nc, subject, body, patience, {CHALLENGE: NEW})
        challenge = (reply.headers or {}).get(CHALLENGE, NEW)
        if challenge != NEW:  # an earlier version answers with the headers of the question
            headers, key = gateway.event_keys.sign_ask(node, subject, challenge, body)
            prepare(partial(session_key, key, challenge))
            reply = await requests.ask(gateway.nc, subject, body, patience, headers)
            if not is_answer(key, subject, headers, body, reply.headers or {}, reply.data):
                raise unproven(node)
        elif await signs(gateway, node):
            raise unproven(node)
    except (NobodyThere, Silent) as error:
        if not gateway.nc.is_connected:
            raise Problem(503, "log_unavailable", LOG_UNAVAILABLE) from error
        detail = f"node {node} does not answer; try again when it is back"
        raise Problem(503, "node_unavailable", detail) from error
    except Unanswered as error:
        raise Problem(503, "log_unavailable", LOG_UNAVAILABLE) from error
    except ValueError as error:
        raise invalid_answer(node, str(error)) from error
    if CURSOR not in (reply.headers or {}):
        read(node, reply)
    return reply


async def signs(gateway: Gateway, node: str) -> bool:
    """Whether a node has its key, so that all its answers have a MAC. True if it is unknown."""
    found, _ = await aggregates.get(gateway.pool, NODES, Ref(subjects.SYSTEM, "node", node), mine=None)
    return found is None or found.state.signs


def unproven(node: str) -> Problem:
    detail = (
        f"the answer is not from node {node}: its MAC is wrong or missing. Somebody else on the bus answers for it, or "
        "its daemon is busy, has just started, or is older than this gateway; try again"
    )
    return Problem(503, "node_unproven", detail)


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
