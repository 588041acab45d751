"""The log of a VM's serial console, from its node."""

import asyncio

from nats.aio.msg import Msg
from starlette.requests import Request
from starlette.responses import Response

from domain.contract import ConsoleLog
from gateway.guests.asks import PATIENCE, ask, invalid_answer, located, unless_stopped
from gateway.http import parameters
from gateway.state import Gateway

#: A guest's output is plain text: no browser may treat it as anything else.
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


async def console_log(gateway: Gateway, request: Request) -> Response:
    """The end of the console log, or what follows after a cursor."""
    after, wait, most = parameters.cursor(request), parameters.wait(request), parameters.size(request)
    vm, node, _ = await located(gateway, request)
    data, more, tail = b"", True, most
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE + wait
    while more and len(data) < most and (not data or loop.time() < deadline):  # a node may send only a byte at a time
        question = ConsoleLog(vm=vm, after=after, tail=tail, wait=0 if data else wait)
        reply = await unless_stopped(gateway, ask(gateway, node, "console-log", question, wait))
        after, more = place(node, reply)
        data += reply.data
        # a node that always says "more" but sends no bytes must not cause an endless loop
        more = more and bool(reply.data)
    headers = {**HEADERS, "Nebula-Cursor": after or "", "Nebula-More": str(more).lower()}
    return Response(data, 200, headers, "text/plain; charset=utf-8")


def place(node: str, reply: Msg) -> tuple[str, bool]:
    """The cursor after a piece of the log, and whether there is more. Raises Problem (502)."""
    headers = reply.headers or {}
    after, more = headers.get("Nebula-Cursor", ""), headers.get("Nebula-More", "")
    if not parameters.CURSOR.fullmatch(after) or more not in ("true", "false"):
        raise invalid_answer(node, "a piece of a console log without a valid cursor")
    return after, more == "true"
