"""All calls of the API, as two tables: the commands (`ACTIONS`, in `commands/actions.py`) and the reads (here)."""

from collections.abc import Collection
from functools import cache, partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from domain.access import (
    EVENT_READ,
    IMAGE_READ,
    KNOWN,
    OPEN,
    OPERATION_READ,
    PARKED_MANAGE,
    PARKED_READ,
    PROJECT_READ,
    SELF,
    STATUS_READ,
    VM_CONSOLE,
    VM_READ,
)
from domain.guest import Guest
from domain.kind import Kind, Scope as Where
from domain.kinds import KINDS
from eventstore.log.envelope import Ref
from gateway import session
from gateway.access import auth
from gateway.commands import commands
from gateway.commands.accepted import VIEWS
from gateway.commands.actions import ACTIONS, Action, collection, item
from gateway.events import audit, feed
from gateway.guard import Guard
from gateway.guests import agent, console_log, tunnels
from gateway.guests.tunnels import Tunnel
from gateway.http import parameters, problems
from gateway.openapi import openapi
from gateway.openapi.described import judge, positions
from gateway.openapi.statuses import OF_A_QUESTION, OF_A_WEBSOCKET
from gateway.operators import authority, health, joining, parked, refusals, status
from gateway.operators.parked import ParkedSummary, ParkedView
from gateway.reads import login, me, reads, tokens
from gateway.reads.read import Function, Read
from gateway.session import SessionView
from gateway.state import Gateway, caller, rows_reflect
from projections import usage
from projections.books import TABLES
from projections.images import ImageView
from projections.operation_rows import OperationView
from projections.projects import PROJECTS, ProjectView
from projections.tokens import TokenView
from projections.usage import UsageView
from projections.vms import VmView

FRESH = ("min_position",)
PAGED = ("limit", "page_token", *FRESH)
FEED = ("after", "from", "ticket")
CONSOLE_LOG = ("bytes", "cursor", "wait", *FRESH)
SEARCH = ("project", "vm", "kind", "type", "actor", "operation", "from", "to", "after", "wait")


async def description(_: Gateway, __: Request) -> Response:
    """The OpenAPI document."""
    return Response(described(), media_type="application/json")


async def usage_of(gateway: Gateway, request: Request) -> Response:
    """The usage of a project now, or with `at` at an earlier time. Raises Problem: 404, 410."""
    project = parameters.path_id(request, "project")
    at, ref = parameters.moment(request, "at"), Ref(project, "project", project)
    if at is None:
        await reads.living(gateway, request, PROJECTS, ref)
        await gateway.fresh(request, kind="vm")
        found = await usage.now(gateway.pool, project)
    else:
        state, last = await reads.as_it_was(gateway, PROJECTS, ref, at)
        if state.deleted:
            raise problems.Problem(410, "project_deleted", f"project {project} was deleted at position {last.position}")
        await gateway.caught_up()  # (the answer has an earlier position)
        found = await usage.as_of(gateway.pool, project, at, last.position)
    rows_reflect(request, found["position"])
    return reads.answer(found)


SESSION = "/v1/session"
PARKED = "/v1/parked/{source}/{key}"
IMAGES = ("phase", "project", "distribution", "release", "architecture")
VMS = "/v1/projects/{project}/vms"
CONSOLE = f"{VMS}/{{vm}}/console"
VNC = f"{VMS}/{{vm}}/vnc"
#: The WebSockets, by path, with their parameters. The last part of the path is the verb of the question to the node.
TUNNELS = {CONSOLE: ("force", *FRESH), VNC: FRESH}


def reads_of(kind: Kind[Any, Any]) -> tuple[Read, Read]:
    """The two reads of a kind: its list, and one resource."""
    table, view = TABLES[kind.name], VIEWS[kind.name]
    inside = kind.scope is Where.PROJECT  # the project is then in the path
    filters = [name for name in table.filters if not (inside and name == "project")]
    listed, of_kind = partial(reads.all_of, kind=kind.name), partial(reads.one, kind=kind.name)
    title = f"{kind.titles[0].upper()}{kind.titles[1:]}"
    return (
        Read(collection(kind), kind.readable_by, listed, title, (*filters, *PAGED), view, listed=True),
        Read(item(kind), kind.readable_by, of_kind, f"A {kind.title}", FRESH, view),
    )


OWN_READS = (
    Read(f"{VMS}/{{vm}}", VM_READ, reads.vm, "A VM, now or at an earlier time", ("at", *FRESH), VmView),
    Read(
        "/v1/operations/{operation}", OPERATION_READ, reads.operation, "An operation", ("wait", *FRESH), OperationView
    ),
    Read(VMS, VM_READ, reads.vm_list, "VMs", ("phase", "tag", "label", "name", "node", *PAGED), VmView, listed=True),
    Read(
        "/v1/operations",
        OPERATION_READ,
        reads.operations,
        "Operations, the newest first",
        ("project", "vm", "kind", "status", *PAGED),
        OperationView,
        listed=True,
    ),
    Read("/v1/projects", PROJECT_READ, reads.projects, "Projects", ("tag", *PAGED), ProjectView, listed=True),
    Read("/v1/projects/{project}", PROJECT_READ, partial(reads.one, kind="project"), "A project", FRESH, ProjectView),
    Read(
        "/v1/projects/{project}/usage",
        PROJECT_READ,
        usage_of,
        "The resources of a project's VMs, now or at an earlier time",
        ("at", *FRESH),
        UsageView,
        statuses=(410,),
    ),
    Read("/v1/images", IMAGE_READ, reads.images, "Images", (*IMAGES, *PAGED), ImageView, listed=True),
    Read("/v1/images/{image}", IMAGE_READ, reads.image, "An image", ("project", *FRESH), ImageView),
    Read("/v1/events", EVENT_READ, audit.search, "The log, searched", (*SEARCH, *PAGED), audit.EventView, listed=True),
    Read("/v1/feed", EVENT_READ, feed.everything, "The log, as it grows", FEED),
    Read("/v1/projects/{project}/feed", EVENT_READ, feed.of_project, "The feed of a project", FEED),
    Read("/v1/tokens", SELF, tokens.many, "Tokens", ("principal", *PAGED), TokenView, listed=True),
    Read("/v1/tokens/{token}", SELF, tokens.one, "A token", FRESH, TokenView),
    Read("/v1/me", SELF, me.me, "The caller, and its roles", (), me.MeView),
    Read("/v1/tickets", SELF, feed.ticket, "A ticket for a feed", (), feed.TicketView, method="POST", body=feed.Ticket),
    Read(SESSION, SELF, session.current, "The session of this browser", (), SessionView, statuses=(404,)),
    Read(
        SESSION,
        SELF,
        session.begin,
        "Begin a session: a cookie for a token",
        (),
        SessionView,
        method="POST",
        statuses=(422,),
    ),
    Read(
        SESSION,
        SELF,
        session.end,
        "End the session of this browser",
        (),
        SessionView,
        method="DELETE",
        statuses=(404,),
    ),
    Read(f"{VMS}/{{vm}}/feed", EVENT_READ, feed.of_vm, "The feed of a VM", FEED),
    Read(
        f"{VMS}/{{vm}}/console-log",
        VM_CONSOLE,
        console_log.console_log,
        "What a VM wrote to its console",
        CONSOLE_LOG,
        str,
        statuses=OF_A_QUESTION,
    ),
    Read(
        f"{VMS}/{{vm}}/guest",
        VM_READ,
        agent.guest,
        "What a guest says of itself now, by its agent",
        FRESH,
        Guest,
        statuses=OF_A_QUESTION,
    ),
    Read(
        CONSOLE,
        VM_CONSOLE,
        tunnels.upgrade_required,
        "A WebSocket to a VM's serial console",
        TUNNELS[CONSOLE],
        statuses=OF_A_WEBSOCKET,
    ),
    Read(
        VNC,
        VM_CONSOLE,
        tunnels.upgrade_required,
        "A WebSocket to a VM's display, in VNC's protocol (RFB)",
        TUNNELS[VNC],
        statuses=OF_A_WEBSOCKET,
    ),
    Read(
        "/v1/parked",
        PARKED_READ,
        parked.many,
        "Parked messages",
        ("status", "source", "limit", "page_token"),
        ParkedSummary,
        True,
    ),
    Read(PARKED, PARKED_READ, parked.one, "A parked message", (), ParkedView),
    Read(
        f"{PARKED}/retry",
        PARKED_MANAGE,
        parked.retry,
        "Put a parked message back",
        (),
        ParkedView,
        method="POST",
        statuses=(409,),
    ),
    Read(
        f"{PARKED}/drop",
        PARKED_MANAGE,
        parked.drop,
        "Close a parked message",
        (),
        ParkedView,
        method="POST",
        body=parked.Drop,
        statuses=(409,),
    ),
    Read("/v1/status", STATUS_READ, status.status, "The state of each process and each manager", (), status.StatusView),
    Read(
        "/v1/refusals",
        STATUS_READ,
        refusals.refusals,
        "Refused calls (401 and 403), the newest first",
        ("address", "credential", "limit", "page_token"),
        refusals.RefusalView,
        listed=True,
    ),
    Read(
        "/v1/join",
        OPEN,
        joining.join,
        "Join as a node, with a join token",
        (),
        joining.JoinView,
        method="POST",
        body=joining.Join,
        statuses=(401, 409, 502),
    ),
    Read("/v1/ca", OPEN, authority.authority, "The platform's authority, in PEM", (), str, statuses=(404,)),
    Read("/v1/login", OPEN, login.login, "How to log in", (), login.LoginView),
    Read("/v1/openapi.json", OPEN, description, "This description"),
    Read(
        "/healthz",
        OPEN,
        health.health,
        "Whether the platform can do its work",
        (),
        health.HealthView,
        unavailable=health.HealthView,
    ),
    Read("/metrics", STATUS_READ, health.metrics, "Metrics for Prometheus", (), str),
)
_OWN = {read.path for read in OWN_READS}
READS = (
    *OWN_READS,
    *(read for kind in KINDS.values() if collection(kind) not in _OWN for read in reads_of(kind)),
)
"""All reads. A kind without reads of its own gets the two of `reads_of`."""


def check(calls: Collection[Read | Action]) -> None:
    """Raises TypeError for a call without a known permission. No gateway starts with such a call."""
    wrong = [f"{call.method} {call.path} needs {call.permission}" for call in calls if call.permission not in KNOWN]
    if wrong:
        raise TypeError(f"not a permission of domain/access.py: {'; '.join(wrong)}")
    without = {call.path for call in calls if call.permission == OPEN}
    if without != auth.OPEN:
        raise TypeError(f"these calls need no token in one of two tables: {', '.join(without ^ auth.OPEN)}")


check((*READS, *ACTIONS))


class Endpoint:
    """Makes an ASGI application of a call and its function. Its name is the label in the metrics."""

    def __init__(self, gateway: Gateway, call: Read | Action, function: Function, known: tuple[str, ...]) -> None:
        self._gateway = gateway
        self._guard = Guard(call)
        self._function = function
        self._name = f"{call.method} {call.path}"
        self._judge = judge(call.path, known)
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


@cache
def described() -> bytes:
    """The OpenAPI document of all calls."""
    return openapi.document(READS, ACTIONS)


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
