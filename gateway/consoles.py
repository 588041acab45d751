"""What the gateway asks of the node that a VM is on: what it wrote to its console."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from eventstore.envelope import Ref
from gateway import parameters, reads
from gateway.parameters import path_id
from gateway.problems import LOG_UNAVAILABLE, Problem, invalid_parameter
from gateway.state import Gateway
from projections.vms import VMS
from runtime import subjects

#: Seconds for a node to answer, on top of what it was asked to wait.
PATIENCE = 5.0
DEFAULT_BYTES, MOST_BYTES = 64 * 1024, 8 * 1024 * 1024
#: What a guest wrote is text, whatever it looks like: no browser may make anything else of it.
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

_CURSOR = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_BYTES = re.compile(r"[0-9]{1,8}")


async def located(gateway: Gateway, request: Request) -> tuple[str, str, Mapping[str, Any]]:
    """The VM, its node, and its state. Raises Problem: 404, 410, and 409 while it has no node."""
    vm = path_id(request, "vm")
    row = await reads.row(gateway, request, VMS, Ref(path_id(request, "project"), "vm", vm))
    state: Mapping[str, Any] = row["state"]
    if not state["node"]:
        raise Problem(409, "vm_not_placed", "the VM has no node yet, so it has no console either")
    return vm, state["node"], state


async def ask(gateway: Gateway, node: str, verb: str, question: Mapping[str, Any], wait: float = 0.0) -> Msg:
    """What a node answers. Raises Problem: what the node says, or 503 where it says nothing."""
    try:
        reply = await gateway.nc.request(subjects.ask(node, verb), to_json(question), timeout=PATIENCE + wait)
    except (NoRespondersError, TimeoutError) as error:
        if not gateway.nc.is_connected:
            raise Problem(503, "log_unavailable", LOG_UNAVAILABLE) from error
        detail = f"node {node}, which the VM is on, does not answer; try again once it is back"
        raise Problem(503, "node_unavailable", detail) from error
    except (NatsError, OSError) as error:
        raise Problem(503, "log_unavailable", LOG_UNAVAILABLE) from error
    if not reply.headers:
        said = json.loads(reply.data)
        if (refused := said.get("problem")) is not None:
            raise Problem(refused["status"], refused["code"], refused["detail"])
    return reply


async def console_log(gateway: Gateway, request: Request) -> Response:
    """The end of what a VM wrote to its serial console, or what follows on a cursor."""
    vm, node, _ = await located(gateway, request)
    after, wait = cursor(request), parameters.wait(request)
    most = size(request)
    data, more, tail = b"", True, most
    while more and len(data) < most:
        question = {"vm": vm, "after": after, "tail": tail, "wait": 0 if data else wait}
        reply = await unless_stopped(gateway, ask(gateway, node, "console-log", question, wait))
        headers = reply.headers or {}
        data += reply.data
        after, more = headers["Nebula-Cursor"], headers["Nebula-More"] == "true"
    answered = {**HEADERS, "Nebula-Cursor": after or "", "Nebula-More": str(more).lower()}
    return Response(data, 200, answered, "text/plain; charset=utf-8")


async def unless_stopped(gateway: Gateway, asking: Any) -> Msg:
    """The answer; a gateway that stops does not wait for it."""
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


def cursor(request: Request) -> str | None:
    """Where to go on, where that is given."""
    text = request.query_params.get("cursor")
    if text is not None and not _CURSOR.fullmatch(text):
        raise invalid_parameter("cursor", "has to be the header Nebula-Cursor of the answer before")
    return text


def size(request: Request) -> int:
    """How many bytes an answer may have."""
    text = request.query_params.get("bytes")
    if text is None:
        return DEFAULT_BYTES
    if not _BYTES.fullmatch(text) or not 1 <= int(text) <= MOST_BYTES:
        raise invalid_parameter("bytes", f"has to be a whole number from 1 to {MOST_BYTES}")
    return int(text)
