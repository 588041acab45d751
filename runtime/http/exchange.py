"""One request and its answer, for an ASGI application."""

import asyncio
import re
from http import HTTPStatus
from typing import Protocol

from starlette.types import ASGIApp, Message, Scope

from runtime import logs
from runtime.http.head import Head

log = logs.get(__name__)

_NOT_A_NAME = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_NOT_A_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_STATUS = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
DISCONNECT: Message = {"type": "http.disconnect"}


class Wire(Protocol):
    """The interface of an exchange to its connection."""

    loop: asyncio.AbstractEventLoop
    #: a future while the client reads too slowly
    writable: asyncio.Future[None] | None

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]: ...

    def write(self, data: bytes) -> None: ...

    def resume(self) -> None:
        """Continue to read the body."""

    def answered(self, exchange: "Exchange") -> None:
        """The answer is complete."""

    def broken(self, exchange: "Exchange", *, stopped: bool) -> None:
        """The application ended without an answer, or in the middle of one. `stopped`: because the process stops."""


class Exchange:
    """`received`: the request is complete. `finished`: the answer is complete. `abandoned`: the client has left."""

    def __init__(self, connection: Wire, head: Head, scope: Scope) -> None:
        self.head = head
        self.received = head.length == 0
        self.started = False
        self.finished = False
        self.abandoned = False
        #: the length of the answer is unknown
        self.endless = False
        self.keep_alive = head.keep_alive
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._scope = scope
        self._parts: list[bytes] = []
        self._held = 0
        self._ended_reported = False
        self._continue = head.expects and not self.received
        self._waiter: asyncio.Future[None] | None = None
        self._start = b""
        self._chunked = False
        self._left: int | None = None

    # ── what the connection brings ──

    def body(self, part: bytes) -> int:
        """Keep a part of the body; the bytes that are held now."""
        self._continue = False
        if self.finished:
            return 0
        self._parts.append(part)
        self._held += len(part)
        return self._held

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self) -> None:
        """The client has left. A request that only reads is cancelled; one that changes something continues."""
        self.abandoned = True
        self.wake()
        if self.task is not None and not self.finished and self.head.method in ("GET", "HEAD"):
            self.task.cancel()

    # ── what the application sees ──

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._unanswered(stopped=True)
            raise
        except Exception:
            log.exception("application failed", path=self._scope["path"])
        self._unanswered(stopped=False)

    def _unanswered(self, *, stopped: bool) -> None:
        if not (self.finished or self.abandoned):
            self._connection.broken(self, stopped=stopped)

    async def receive(self) -> Message:
        while not (self._parts or self.received or self.abandoned or self.finished):
            if self._continue:
                self._continue = False
                self._connection.write(CONTINUE)
            await self._wait()
        if self.abandoned or self.finished:
            return DISCONNECT
        if self._parts or not self._ended_reported:
            part = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._held = 0
            self._ended_reported = self.received
            if not self.received:
                self._connection.resume()
            return {"type": "http.request", "body": part, "more_body": not self.received}
        while not (self.abandoned or self.finished):
            await self._wait()
        return DISCONNECT

    async def _wait(self) -> None:
        self._waiter = self._connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def send(self, message: Message) -> None:
        writable = self._connection.writable
        if writable is not None and not self.abandoned:
            await writable
        if self.abandoned or self.finished:
            return  # the answer to HEAD is finished before the application has sent its body
        if message["type"] == "http.response.start" and not self.started:
            self._begin(message)
        elif message["type"] == "http.response.body" and self.started:
            self._go_on(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected {message['type']}")

    def _begin(self, message: Message) -> None:
        status = message["status"]
        lines = [_STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in (*self._connection.default_headers, *message.get("headers", ())):
            if _NOT_A_NAME.search(name) or _NOT_A_VALUE.search(value):
                raise RuntimeError(f"invalid header {name!r}")
            lowered = name.lower()
            if lowered == b"content-length":
                self._left = int(value)
            elif lowered == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            lines += (lowered, b": ", value, b"\r\n")
        empty = self.head.method == "HEAD" or status in (204, 304)
        if self._continue:  # the client may or may not send the body now, so the connection cannot be reused
            self.keep_alive = False
        if self._left is None and not empty:
            self.endless = True
            self._chunked = self.head.version == "1.1"
            if self._chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self.started = True
        if empty:
            self._end(b"".join(lines))
        elif self.endless:
            self._connection.write(b"".join(lines))
        else:
            self._start = b"".join(lines)

    def _go_on(self, body: bytes, more: bool) -> None:
        data = body
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the length of the body differs from Content-Length")
        elif self._chunked:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                data += b"0\r\n\r\n"
        if self._start:
            data, self._start = self._start + data, b""
        if more:
            self._connection.write(data)
        else:
            self._end(data)

    def _end(self, data: bytes) -> None:
        self.finished = True
        self._parts.clear()
        self.wake()
        self._connection.write(data)
        self._connection.answered(self)
