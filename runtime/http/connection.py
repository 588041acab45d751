"""One connection: requests are read and answered one after the other.

- A request is parsed after the one before it was answered. So pipelined requests are answered in order, and no request
  is processed for a client that has left.
- A client that closes its sending side gets its answers. An endless answer (a feed) ends then: the client has almost
  always closed the whole connection, which only a failed write would show.
- Every wait is limited: `check` is called twice a second, and ends the connection if it is over its time.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, cast

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.server import ServerState

from runtime.http.census import Census
from runtime.http.chunks import Chunks
from runtime.http.exchange import Exchange
from runtime.http.head import Head, parse
from runtime.http.limits import Limits
from runtime.http.refusal import Refused, malformed
from runtime.http.sockets import address, is_reset
from runtime.http.websocket import WebSockets, is_handshake

#: Maximum bytes in memory of a body that the application does not read, or of waiting requests.
HELD = 64 * 1024
#: Seconds for which a client may keep the connection open after the last answer: without sending, and while it sends.
LINGER = 2.0
MOST_LINGER = 30.0
NEVER = float("inf")
#: Minimum number of bytes of an answer that a client has to read within `head_seconds`, unless fewer are left.
LEAST = 4096
STOPPED = Refused(503, "stopping", "this process is being stopped; try again")
BROKEN = Refused(500, "internal_error", "this is a bug in Nebula; see the log of the server")


@dataclass(frozen=True)
class Listener:
    """The data that all connections of a listener share. `websockets`: whether its application accepts them."""

    limits: Limits
    census: Census
    websockets: bool = False


class Connection(asyncio.Protocol):
    """HTTP as an asyncio protocol; uvicorn creates one for each connection."""

    def __init__(
        self,
        listener: Listener,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.loop = _loop or asyncio.get_running_loop()
        #: a future while the client reads too slowly
        self.writable: asyncio.Future[None] | None = None
        self._listener = listener
        self._limits = listener.limits
        self._config = config
        self._server = server_state
        self._app_state = app_state
        self._buffer = bytearray()
        self._searched = 0
        self._exchange: Exchange | None = None
        self._chunks: Chunks | None = None
        self._left = 0
        self._paused = False
        self._eof = False
        self._closing = False
        self._last = NEVER
        self._key: str | None = None
        self._secure = False
        self._deadline = NEVER
        self._unsent = 0

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return self._server.default_headers

    # ── callbacks of asyncio ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._client = address(self._transport, "peername")
        self._here = address(self._transport, "sockname")
        self._secure = transport.get_extra_info("sslcontext") is not None
        self._server.connections.add(self)  # type: ignore[arg-type]  # it only calls `shutdown`
        self._listener.census.members.add(self)
        self._deadline = self.loop.time() + self._limits.head_seconds
        try:
            self._key = self._listener.census.admit(self._client[0])
        except Refused as refused:
            if self._listener.census.crowded:
                self._transport.abort()
            else:
                self._refuse(refused)

    def connection_lost(self, exc: Exception | None) -> None:
        self._depart()
        if self._key is not None:
            self._listener.census.leave(self._key)
            self._key = None
        if self._exchange is not None:
            self._exchange.leave()
        self._closing = True
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._deadline = min(self._last, self.loop.time() + LINGER)
            return
        self._buffer += data
        self._advance()

    def eof_received(self) -> bool:
        """Whether to keep the connection open for the answer. With TLS it ends: TLS has no half-closed connections."""
        return self._ended() and not self._secure

    def _ended(self) -> bool:
        self._eof = True
        if self._closing:
            return False
        exchange = self._exchange
        if exchange is None:
            self._advance()
            return not self._transport.is_closing()
        if not exchange.received:
            self._refuse(Refused(400, "incomplete_body", "the body ended before its announced end"))
            return True
        self._deadline = self._while_answering(exchange)
        return not (exchange.started and exchange.endless)

    def pause_writing(self) -> None:
        self.writable = self.loop.create_future()
        self._while_running()

    def resume_writing(self) -> None:
        waiting, self.writable = self.writable, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        self._while_running()

    def shutdown(self) -> None:
        """The server stops: finish the current answer, and read no further request."""
        if self._exchange is None or self._exchange.finished:
            self._transport.close()
        else:
            self._exchange.keep_alive = False

    def check(self, now: float) -> None:
        """End the connection if it is over its time, or if the client has reset it after half-closing."""
        if now > self._deadline:
            self._expire()
        elif self._eof and self._exchange is not None and is_reset(self._transport):
            self._transport.abort()

    def _while_running(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.received and not (exchange.finished or self._closing):
            self._deadline = self._while_answering(exchange)

    def _while_answering(self, exchange: Exchange) -> float:
        """The deadline of an exchange whose request was received completely."""
        if self.writable is not None and not exchange.endless:
            return self.loop.time() + self._limits.head_seconds
        if self._eof and not exchange.started:
            return self.loop.time() + self._limits.half_closed_seconds
        return NEVER

    # ── requests ──

    def _advance(self) -> None:
        """Process the bytes in the buffer."""
        try:
            while not self._closing:
                exchange = self._exchange
                if exchange is None:
                    if not self._next():
                        return
                elif not exchange.received:
                    if not self._body(exchange):
                        return
                elif exchange.finished:
                    self._exchange = None
                    self._deadline = self.loop.time() + self._limits.idle_seconds
                else:
                    if len(self._buffer) > HELD:
                        self._pause()
                    return
        except Refused as refused:
            self._refuse(refused)

    def _next(self) -> bool:
        """Start the next request if its head is complete; returns whether it was started. Raises Refused."""
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._wait_for_head()
            return False
        if end + 4 > self._limits.head:
            raise self._head_too_large()
        raw = bytes(buffer[: end + 4])
        del buffer[: end + 4]
        self._searched = 0
        head = parse(raw, self._limits)
        if self._listener.websockets and not self._eof and is_handshake(head):
            self._hand_over(head)
            return False
        self._begin(head)
        return True

    def _wait_for_head(self) -> None:
        buffer = self._buffer
        if len(buffer) > self._limits.head:
            raise self._head_too_large()
        if buffer and not self._searched:  # the first bytes of a request
            self._deadline = min(self._deadline, self.loop.time() + self._limits.head_seconds)
        at = buffer.find(b"\n", self._searched)
        while at >= 0:
            if at == 0 or buffer[at - 1] != 13:
                raise malformed("lines must end in CR LF")
            at = buffer.find(b"\n", at + 1)
        self._searched = len(buffer)
        if self._eof:
            if buffer:
                raise malformed("the request ended within its head")
            self._close()
        else:
            self.resume()

    def _head_too_large(self) -> Refused:
        text = f"a request line and its headers may have at most {self._limits.head} bytes"
        return Refused(431, "headers_too_large", text)

    def _begin(self, head: Head) -> None:
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "server": self._here,
            "client": self._client,
            "scheme": "https" if self._secure else "http",
            "root_path": "",
            "headers": head.headers,
            "method": head.method,
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
        }
        exchange = self._exchange = Exchange(self, head, scope)
        self._chunks = Chunks(self._limits) if head.length is None else None
        self._left = head.length or 0
        if exchange.received:
            self._deadline = self._while_answering(exchange)
        else:
            self._deadline = self.loop.time() + self._limits.body_seconds
        task = exchange.task = self.loop.create_task(exchange.run(self._config.loaded_app))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _body(self, exchange: Exchange) -> bool:
        """Take the received part of the body. Returns whether the body is complete. Raises Refused."""
        if self._chunks is not None:
            part = self._chunks.take(self._buffer)
            exchange.received = self._chunks.done
        else:
            part = bytes(self._buffer[: self._left])
            del self._buffer[: self._left]
            self._left -= len(part)
            exchange.received = self._left == 0
        held = exchange.body(part) if part else 0
        if exchange.received:
            self._deadline = self._while_answering(exchange)
        elif held > HELD:
            self._pause()
        if part or exchange.received:
            exchange.wake()
        if not exchange.received and self._eof:
            raise Refused(400, "incomplete_body", "the body ended before its announced end")
        return exchange.received

    # ── answers ──

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def answered(self, exchange: Exchange) -> None:
        """The answer is complete."""
        self._server.total_requests += 1
        if not exchange.keep_alive:
            self._close()
        elif exchange.received:
            self._advance()
        else:  # the rest of the body is read and ignored
            self.resume()

    def broken(self, exchange: Exchange, *, stopped: bool) -> None:
        """The application ended without an answer, or in the middle of one. `stopped`: because the process stops."""
        if exchange.started:
            self._transport.abort()  # so that the client does not take the answer for complete
        else:
            self._refuse(STOPPED if stopped else BROKEN)

    def _refuse(self, refused: Refused) -> None:
        """Answer with this refusal, unless the request was answered, and end the connection."""
        exchange = self._exchange
        if exchange is not None and exchange.started and not exchange.finished:
            self._transport.abort()
            return
        if exchange is None or not exchange.finished:
            self.write(refused.answer())
        if exchange is not None:
            exchange.leave()
        self._close()

    def _close(self) -> None:
        """End after the last answer. Further bytes of the client are read for a moment: otherwise TCP may reset the
        connection, and the client would lose the answer.
        """
        if self._closing:
            return
        self._closing = True
        self._buffer.clear()
        now = self.loop.time()
        self._deadline, self._last = now + LINGER, now + MOST_LINGER
        if self._eof or self._secure:
            self._transport.close()
            return
        self.resume()
        with contextlib.suppress(OSError, RuntimeError):  # the connection was lost meanwhile
            self._transport.write_eof()

    def _expire(self) -> None:
        unsent, before = self._transport.get_write_buffer_size(), self._unsent
        self._unsent = unsent
        if unsent and (not before or abs(before - unsent) >= LEAST):  # the client reads, although slowly
            self._deadline = self.loop.time() + self._limits.head_seconds
        elif self._closing:
            self._transport.abort()
        elif self._exchange is not None and self._exchange.received:
            if not self._exchange.started or (self.writable is not None and not self._exchange.endless):
                self._transport.abort()
        elif self._exchange is not None:
            text = f"the body must be sent within {self._limits.body_seconds:g} seconds"
            self._refuse(Refused(408, "request_timeout", text))
        elif self._buffer:
            text = f"the headers must be sent within {self._limits.head_seconds:g} seconds"
            self._refuse(Refused(408, "request_timeout", text))
        else:
            self._close()

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # ── WebSockets ──

    def _hand_over(self, head: Head) -> None:
        """Give the connection to uvicorn's WebSocket protocol. It is still counted and checked."""
        census, key = self._listener.census, self._key
        protocol = WebSockets(config=self._config, server_state=self._server, app_state=self._app_state)

        def leave() -> None:
            census.members.discard(protocol)
            if key is not None:
                census.leave(key)

        protocol.leave = leave
        self._depart()
        self.resume()
        census.members.add(protocol)
        protocol.connection_made(self._transport)
        target = head.raw_path + (b"?" + head.query if head.query else b"")
        lines = [b"GET %b HTTP/1.1" % target, *(b"%b: %b" % header for header in head.headers)]
        protocol.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + bytes(self._buffer))
        self._transport.set_protocol(protocol)
        if not protocol.handshake_initiated:
            self._transport.write(malformed("the WebSocket handshake is malformed").answer())
            self._transport.close()

    def _depart(self) -> None:
        self._listener.census.members.discard(self)
        self._server.connections.discard(self)
