"""The routes of the API: of the commands (`ACTIONS`, in `commands/actions.py`) and the reads (`READS`, in `table/`)."""

from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from gateway.commands import commands
from gateway.commands.actions import ACTIONS, Action
from gateway.guard import Guard
from gateway.guests.tunnels import Tunnel
from gateway.http import parameters, problems
from gateway.openapi.described import judge, positions
from gateway.reads.read import Function, Read
from gateway.state import Gateway, caller
from gateway.table.reads import READS, described
from gateway.table.vms import TUNNELS


class Endpoint:
    """Makes an ASGI application of a call and its function. Its name is the label in the metrics."""

    def __init__(self, gateway: Gateway, call: Read | Action, function: Function, known: tuple[str, ...]) -> None:
        self._gateway = gateway
        self._guard = Guard(call)
        self._function = function
        self._name = f"{call.method} {call.path}"
        leads = isinstance(call, Read) and call.redirects
        self._judge = (lambda _: None) if leads else judge(call.path, known)
        self._positions = positions(call.path, known)
        self._waits = "wait" in known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["nebula.route"] = self._name
        request = Request(scope, receive)
        self._judge(request)
        await self._guard(self._gateway, request)
        await self._gateway.judge(request, self._positions)
        answering = self._function(self._gateway, request)
        if self._waits and parameters.wait(request):
            answering = self._gateway.access.during(caller(request).identity, answering)
        response = await answering
        await response(scope, receive, send)


def router(gateway: Gateway) -> Router:
    """All routes of a gateway. The router raises HTTPException for other paths."""
    described()  # so a call without a complete description stops the start
    by_path: dict[str, dict[str, Endpoint]] = {}
    for action in ACTIONS:
        ask = partial(commands.command, action=action)
        endpoint = Endpoint(gateway, action, ask, ("wait",))
        by_path.setdefault(action.path, {})[action.method] = endpoint
    for read in READS:
        endpoint = Endpoint(gateway, read, read.function, read.parameters)
        methods = ("GET", "HEAD") if read.method == "GET" else (read.method,)
        by_path.setdefault(read.path, {}).update(dict.fromkeys(methods, endpoint))
    tunnelled = [
        WebSocketRoute(
            read.path, Tunnel(gateway, read.path, Guard(read), judge(read.path, known), positions(read.path, known))
        )
        for read in READS
        if (known := TUNNELS.get(read.path)) is not None
    ]
    routes = [Route(path, Methods(endpoints), methods=None) for path, endpoints in by_path.items()]
    return Router([*routes, *tunnelled], redirect_slashes=False, default=unknown_path)


async def unknown_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise 404 for a path that is neither a call nor a WebSocket."""
    raise HTTPException(404)


class Methods:
    """One path: the endpoint for each method."""

    def __init__(self, endpoints: dict[str, Endpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is None:
            raise problems.method_not_allowed(sorted(self._endpoints))
        await endpoint(scope, receive, send)
