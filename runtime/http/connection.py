"""One connection: requests are read and answered one after the other.

- The next request is parsed when the one before it has been answered, so what is pipelined is answered in order, and
  nothing runs for a client that has left.
- A client that closes its sending side gets its answers. An answer without end (a feed) that is under way ends there,
  since almost always the client has left as a whole, and only a write could tell.
- Nothing waits without limit: `check` is called twice a second and ends what is over its time.
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
from runtime.http.websocket import WebSockets, whole

#: Bytes that are held of a body that nobody reads, or of requests that wait for their turn.
HELD = 64 * 1024
#: Seconds that a client gets to end by itself after the last answer; the same while it still sends.
LINGER = 2.0
MOST_LINGER = 30.0
NEVER = float("inf")
#: Bytes that a client has to take in `head_seconds` of what is sent to it, or else all.
LEAST = 4096
BROKEN = Refused(500, "internal_error", "this is a bug in Nebula; the log of the server tells more")


@dataclass(frozen=True)
class Listener:
    """What all connections of a listener share. `websockets`: whether its application speaks them."""

    limits: Limits
    census: Census
    websockets: bool = False


class Connection(asyncio.Protocol):
    """HTTP as an asyncio protocol; uvicorn makes one for each connection."""

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
        self._deadline = NEVER
        self._unsent = 0

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return self._server.default_headers

    # ── what asyncio tells ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._client = address(self._transport, "peername")
        self._here = address(self._transport, "sockname")
        self._server.connections.add(self)  # type: ignore[arg-type]  # it wants `shutdown` alone
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
        """The server is being stopped: answer what was asked, and nothing more."""
        if self._exchange is None or self._exchange.finished:
            self._transport.close()
        else:
            self._exchange.keep_alive = False

    def check(self, now: float) -> None:
        """End what is over its time, and what was reset by a client that half-closed before."""
        if now > self._deadline:
            self._expire()
        elif self._eof and self._exchange is not None and is_reset(self._transport):
            self._transport.abort()

    def _while_running(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.received and not (exchange.finished or self._closing):
            self._deadline = self._while_answering(exchange)

    def _while_answering(self, exchange: Exchange) -> float:
        """Until when something has to happen to an exchange whose request is all here."""
        if self.writable is not None and not exchange.endless:
            return self.loop.time() + self._limits.head_seconds
        if self._eof and not exchange.started:
            return self.loop.time() + self._limits.half_closed_seconds
        return NEVER

    # ── requests ──

    def _advance(self) -> None:
        """Go on with what is in the buffer."""
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
        """Begin with the next request, when its head is complete. Raises Refused."""
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
        if self._listener.websockets and not self._eof and whole(head):
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
                raise malformed("lines have to end in CR LF")
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
            "scheme": "http",
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
        """Take what there is of the body; whether all of it is here now. Raises Refused."""
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
        """All of the answer was given."""
        self._server.total_requests += 1
        if not exchange.keep_alive:
            self._close()
        elif exchange.received:
            self._advance()
        else:  # the rest of the body is read, and dropped
            self.resume()

    def broken(self, exchange: Exchange) -> None:
        """The application ended without an answer, or in the middle of one."""
        if exchange.started:
            self._transport.abort()  # so that nobody takes what there is for all
        else:
            self._refuse(BROKEN)

    def _refuse(self, refused: Refused) -> None:
        """Answer by ourselves, unless the request has its answer, and end the connection."""
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
        """End after the last answer. What the client still sends is read for a moment: else it may lose the answer."""
        if self._closing:
            return
        self._closing = True
        self._buffer.clear()
        now = self.loop.time()
        self._deadline, self._last = now + LINGER, now + MOST_LINGER
        if self._eof:
            self._transport.close()
            return
        self.resume()
        with contextlib.suppress(OSError, RuntimeError):  # it has been lost meanwhile
            self._transport.write_eof()

    def _expire(self) -> None:
        unsent, before = self._transport.get_write_buffer_size(), self._unsent
        self._unsent = unsent
        if unsent and (not before or abs(before - unsent) >= LEAST):  # it reads, if slowly
            self._deadline = self.loop.time() + self._limits.head_seconds
        elif self._closing:
            self._transport.abort()
        elif self._exchange is not None and self._exchange.received:
            if not self._exchange.started or (self.writable is not None and not self._exchange.endless):
                self._transport.abort()
        elif self._exchange is not None:
            text = f"the body has to be sent within {self._limits.body_seconds:g} seconds"
            self._refuse(Refused(408, "request_timeout", text))
        elif self._buffer:
            text = f"the headers have to be sent within {self._limits.head_seconds:g} seconds"
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
        """Let uvicorn's WebSocket protocol have the connection. It is counted on, and looked after."""
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
            self._transport.write(malformed("the handshake cannot be read").answer())
            self._transport.close()

    def _depart(self) -> None:
        self._listener.census.members.discard(self)
        self._server.connections.discard(self)
