"""What a VM wrote to its serial console, as its node kept it."""

import asyncio
import re

from nats.aio.msg import Msg
from starlette.requests import Request
from starlette.responses import Response

from gateway import parameters
from gateway.asks import PATIENCE, ask, located, nonsense, unless_stopped
from gateway.problems import invalid_parameter
from gateway.state import Gateway

DEFAULT_BYTES, MOST_BYTES = 64 * 1024, 8 * 1024 * 1024
#: What a guest wrote is text, whatever it looks like: no browser may make anything else of it.
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

CURSOR = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_BYTES = re.compile(r"[0-9]{1,8}")


async def console_log(gateway: Gateway, request: Request) -> Response:
    """The end of what a VM wrote to its serial console, or what follows on a cursor."""
    vm, node, _ = await located(gateway, request)
    after, wait = cursor(request), parameters.wait(request)
    most = size(request)
    data, more, tail = b"", True, most
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE + wait
    while more and len(data) < most and (not data or loop.time() < deadline):  # a node may give a byte at a time
        question = {"vm": vm, "after": after, "tail": tail, "wait": 0 if data else wait}
        reply = await unless_stopped(gateway, ask(gateway, node, "console-log", question, wait))
        after, more = place(node, reply)
        data += reply.data
        more = more and bool(reply.data)  # or a node that always has more, and never says what, would be asked for ever
    answered = {**HEADERS, "Nebula-Cursor": after or "", "Nebula-More": str(more).lower()}
    return Response(data, 200, answered, "text/plain; charset=utf-8")


def place(node: str, reply: Msg) -> tuple[str, bool]:
    """The cursor behind a piece of the log, and whether there is more. Raises Problem (502)."""
    headers = reply.headers or {}
    after, more = headers.get("Nebula-Cursor", ""), headers.get("Nebula-More", "")
    if not CURSOR.fullmatch(after) or more not in ("true", "false"):
        raise nonsense(node, "a piece of a console's log without its place")
    return after, more == "true"


def cursor(request: Request) -> str | None:
    """Where to go on, where that is given."""
    text = request.query_params.get("cursor")
    if text is not None and not CURSOR.fullmatch(text):
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
