"""The steps of every call: authentication, the headers of every answer, and the conversion of errors to answers.

This is plain ASGI, because it is on the path of every command. Errors become problem documents only here.
An error that is not in the map is a bug: its traceback is logged, and the answer is 500 with the request id.
"""

import re
import time

from starlette.requests import ClientDisconnect
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from gateway.access import tickets
from gateway.access.auth import MORE_WITH_TOKEN, OPEN, offered
from gateway.access.identity import NOBODY, Identity
from gateway.access.refusals import STATUSES
from gateway.console.routes import Console
from gateway.http import parameters, problems
from gateway.http.problems import Problem, invalid_parameter
from gateway.state import Caller, Gateway
from runtime import logs
from runtime.random_id import random_uuid

log = logs.get(__name__)

#: The ASGI messages that begin an answer: to a call, to a refused WebSocket, to an opened WebSocket.
STARTS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Edge:
    """The gateway as an ASGI application."""

    def __init__(self, gateway: Gateway, router: Router, console: Console) -> None:
        self._gateway = gateway
        self._router = router
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        call = _Call(self._gateway, scope, receive, send)
        try:
            call.judge()
            if scope["type"] == "http" and self._console.serves(scope["path"]):
                await self._console(scope, call.receive, call.send)
            else:
                await call.admit()
                await self._router(scope, call.receive, call.send)
        except ClientDisconnect:
            return
        except Exception as error:
            await call.fail(error)


class _Call:
    """One call. Its `send` adds headers to the answer."""

    def __init__(self, gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
        self._gateway = gateway
        self._scope = scope
        self.receive = receive
        self._send = send
        self._started = time.perf_counter()
        self._answered = False
        self._headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given = self._headers.get(b"x-request-id")
        self._valid_id = given is None or _REQUEST_ID.fullmatch(given) is not None
        self.request_id = given if given is not None and self._valid_id else random_uuid()
        scope["app"] = self  # the router raises for unknown paths instead of answering by itself
        scope["nebula.reflects"] = None
        scope["nebula.route"] = "none"

    def judge(self) -> None:
        """Whether a call may come in, whoever its caller is. Raises Problem."""
        parameters.header(self._scope, "X-Request-Id")  # raises if it is given twice
        if not self._valid_id:
            raise invalid_parameter("X-Request-Id", "has to be 1 to 128 visible ASCII characters")
        names = (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode")
        self._gateway.sites.judge(*map(self._headers.get, names))

    async def admit(self) -> None:
        """Identify the caller. Raises Problem for an unknown one, and if that cannot be known now."""
        identity = await (self._of_open_path() if self._scope["path"] in OPEN else self._identity())
        trace = self._headers.get(b"traceparent", "")
        self._scope["nebula.caller"] = Caller(
            identity, self.request_id, trace if _TRACEPARENT.fullmatch(trace) else None
        )

    async def _of_open_path(self) -> Identity:
        """The caller of a path that needs no token. Raises Problem: 401 for a wrong token, which counts as elsewhere.

        A caller that cannot be known now is nobody.
        """
        if self._scope["path"] not in MORE_WITH_TOKEN:
            return NOBODY
        credential = self._headers.get(b"authorization") or self._of_cookie()
        if credential is None and self._gateway.access.needed:
            return NOBODY
        try:
            return await self._gateway.access.identify(credential)
        except Problem as problem:
            if problem.status != 503:
                raise
            return NOBODY

    async def _identity(self) -> Identity:
        """The caller: by a token, for a feed by a ticket, for a page by a cookie. Raises Problem: 401, 403, 503."""
        authorization = self._headers.get(b"authorization") or offered(self._scope.get("subprotocols", ()))
        scope = self._scope
        ticket = tickets.offered(scope.get("method", ""), scope["path"], scope["query_string"])
        if authorization is None and ticket is not None:
            return self._gateway.tickets.redeem(ticket, scope["path"], self._gateway.access)
        return await self._gateway.access.identify(authorization or self._of_cookie())

    def _of_cookie(self) -> str | None:
        """The `Authorization` of a browser's session; None without one. Raises Problem (403)."""
        get, sessions = self._headers.get, self._gateway.sessions
        session = sessions.offered(get(b"cookie"))
        if session is None:
            return None
        sessions.judge(session, self._scope.get("method", ""), get(b"x-csrf-token"), get(b"origin"))
        self._scope["nebula.session"] = session
        return f"Bearer {session.token}"

    def _is_known(self) -> bool:
        who: Caller | None = self._scope.get("nebula.caller")
        return who is not None and who.identity is not NOBODY

    async def _refused(self, problem: Problem) -> Problem:
        """The answer to a caller that may not do this."""
        who: Caller | None = self._scope.get("nebula.caller")
        identity = who.identity if who is not None else None
        return await self._gateway.refusals.judge(problem, self._scope, self._headers, identity, self.request_id)

    async def send(self, message: Message) -> None:
        if message["type"] in STARTS:
            self._answered = True
            headers = message.setdefault("headers", [])
            headers.append((b"x-request-id", self.request_id.encode()))
            if self._is_known():  # its growth shows others how much happens
                position = self._scope["nebula.reflects"]
                if position is None:
                    position = self._gateway.position.value
                headers.append((b"nebula-position", b"%d" % position))
            headers.extend(self._gateway.headers.missing(headers, of_session="nebula.session" in self._scope))
            seconds = time.perf_counter() - self._started
            self._gateway.metrics.answered(self._scope["nebula.route"], message.get("status", 101), seconds)
        await self._send(message)

    async def fail(self, error: Exception) -> None:
        """Answer with the problem document for an exception."""
        problem = problems.of(error)
        if problem is None:
            log.exception("call failed", request=self.request_id, path=self._scope["path"])
            problem = Problem(500, "internal_error", "this is a bug in Nebula; report it with the request_id")
        if problem.status in STATUSES:
            problem = await self._refused(problem)
        self._gateway.metrics.refusals.labels(problem.code).inc()
        if not self._answered:  # (a WebSocket that was opened is closed by the server, as broken)
            await problem.response(self.request_id)(self._scope, self.receive, self.send)
