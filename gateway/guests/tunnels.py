"""Connections to guests: from a WebSocket over the bus to the guest's node.

A browser cannot send `Authorization` with a WebSocket, so its token may also come as a subprotocol (`auth.offered`).
A refusal is sent before the WebSocket is opened, as a problem document like for every other call. The scripts of a
browser cannot read that answer: a client that offers the subprotocol `problem` gets it as a text message instead.
"""

import asyncio
import contextlib
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from domain.contract import Connection
from domain.vm import Console, Phase
from gateway.access.identity import Identity
from gateway.guard import Guard
from gateway.guests.asks import SessionKey, ask, located
from gateway.guests.sessions import Session
from gateway.http import parameters
from gateway.http.parameters import Judge
from gateway.http.problems import Problem
from gateway.state import Gateway, caller
from runtime import logs, subjects
from runtime.bus.pipe import Ended, Pipe
from runtime.tasks.tasks import end

log = logs.get(__name__)

#: The subprotocol: plain bytes.
BINARY = "binary"
#: Offered by a client that reads refusals from a text message. It is never selected.
PROBLEM = "problem"
#: The code of the last frame after such a refusal is its status and this.
REFUSED = 4000
#: Maximum number of bytes of a reason in a WebSocket's last frame.
MOST_REASON = 120
NORMAL, NOT_ALLOWED, RESTARTS = 1000, 1008, 1012
LEFT, STOPPING = "the client has left", "the gateway is being stopped"
NO_LONGER_VALID = "the credential of the caller is no longer valid"
#: Seconds for a client to take the last frame.
LAST_FRAME = 1.0
#: The console, by the verb of the question to the node.
CONSOLES = {"console": Console.SERIAL, "vnc": Console.VNC}


class Tunnel:
    """An ASGI application for one WebSocket. The last part of its path is the verb of the question to the node."""

    def __init__(self, gateway: Gateway, path: str, guard: Guard, judge: Judge, positions: tuple[str, ...]) -> None:
        self._gateway = gateway
        self._kind = path.rsplit("/", 1)[-1]
        self._path = path
        self._guard = guard
        self._judge = judge
        self._positions = positions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # the request to connect
        scope["nebula.route"] = f"GET {self._path}"
        request = Request({**scope, "type": "http", "method": "GET"})
        self._judge(request)
        await self._guard(self._gateway, request)
        try:
            await self._connect(request, scope, receive, send)
        except Problem as problem:
            if PROBLEM not in scope["subprotocols"]:
                raise
            await refuse(problem, scope, send)

    async def _connect(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Open the connection, and carry it until its end. Raises Problem only before it is open."""
        await self._gateway.judge(request, self._positions)
        force = parameters.flag(request, "force")
        vm, node, state = await located(self._gateway, request)
        if state.phase is not Phase.RUNNING:
            detail = (
                f"the VM is {state.phase}: only a running VM has a console; start or resume it, or read its console-log"
            )
            raise Problem(409, "wrong_phase", detail)
        who = caller(request)
        session = Session(parameters.path_id(request, "project"), vm, CONSOLES[self._kind], who)
        inbound, outbound = (subjects.session(node, session.id, receiver) for receiver in ("gateway", "node"))
        pipe = Pipe(self._gateway.nc, inbound, outbound)
        logger = log.bind(kind=self._kind, vm=vm, session=session.id, actor=who.identity.actor, request=who.request)
        await pipe.open()
        leaves = LEFT
        try:
            question = Connection(vm=vm, session=session.id, actor=who.identity.actor, force=force)

            def seal(key: SessionKey) -> None:
                pipe.seal(key(outbound), key(inbound))

            await ask(self._gateway, node, self._kind, question, prepare=seal)
            await session.open(self._gateway, force=force)
            logger.info("connection opened", node=node, force=force)
            await send(accepting(scope))
            if await carry(self._gateway, who.identity, pipe, receive, send):
                leaves = NO_LONGER_VALID
        finally:
            try:
                await pipe.close(STOPPING if self._gateway.stop.is_set() else leaves)
            finally:
                session.close(self._gateway, pipe.ended)
            logger.info("connection closed", why=pipe.ended, seconds=session.seconds())


async def carry(gateway: Gateway, identity: Identity, pipe: Pipe, receive: Receive, send: Send) -> bool:
    """Pass bytes in both directions, until one end or this gateway stops, or the caller is no longer valid.

    Returns whether that was because the caller is no longer valid.
    """
    outward = asyncio.create_task(out(pipe, send))
    inward = asyncio.create_task(into(pipe, receive))
    stopped = asyncio.create_task(gateway.stop.wait())
    lost = asyncio.create_task(gateway.access.lost(identity))
    tasks: list[asyncio.Task[Any]] = [outward, inward, stopped, lost]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        why = lost.result() if lost.done() else None
    finally:
        await end(tasks)
    with contextlib.suppress(ClientDisconnect, TimeoutError):  # the client has disconnected as well, or reads nothing
        async with asyncio.timeout(LAST_FRAME):
            await send_last(gateway, why, pipe, send)
    return why is not None


async def send_last(gateway: Gateway, why: Problem | None, pipe: Pipe, send: Send) -> None:
    """The frame that says why a connection ends, unless the client has ended it."""
    if why is not None:
        await send(closing(NOT_ALLOWED, why.detail))
    elif pipe.ended is not None:
        await send(closing(NORMAL, pipe.ended))
    elif gateway.stop.is_set():
        await send(closing(RESTARTS, "this gateway is being stopped; connect again"))


async def out(pipe: Pipe, send: Send) -> None:
    while True:
        try:
            data = await pipe.receive()
        except Ended:
            return
        await send({"type": "websocket.send", "bytes": data})


async def into(pipe: Pipe, receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return
        data = message.get("bytes") or (message.get("text") or "").encode()
        try:
            await pipe.send(data)
        except Ended:
            return


async def refuse(problem: Problem, scope: Scope, send: Send) -> None:
    """Send a refusal as a text message, and end the connection."""
    said = {"status": problem.status, "code": problem.code, "detail": problem.detail}
    await send(accepting(scope))
    with contextlib.suppress(ClientDisconnect):
        await send({"type": "websocket.send", "text": json.dumps(said)})
        await send(closing(REFUSED + problem.status, problem.code))


def accepting(scope: Scope) -> Message:
    return {"type": "websocket.accept", "subprotocol": BINARY if BINARY in scope["subprotocols"] else None}


def closing(code: int, reason: str) -> Message:
    text = reason.encode()[:MOST_REASON].decode(errors="ignore")
    return {"type": "websocket.close", "code": code, "reason": text}


async def upgrade_required(gateway: Gateway, request: Request) -> Response:
    """The refusal of a call that should be a WebSocket (426)."""
    for kind in ("project", "vm"):
        parameters.path_id(request, kind)
    detail = "this path is a WebSocket: use a WebSocket client"
    raise Problem(426, "upgrade_required", detail, headers={"Upgrade": "websocket"})
