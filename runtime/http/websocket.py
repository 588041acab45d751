"""uvicorn's WebSocket protocol, within limits: of fragments, of pongs that nobody reads, of time to leave."""

import base64
import binascii
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from runtime.http.head import Head

#: Fragments of one message that are kept apart.
MOST_FRAGMENTS = 1024
#: Seconds for a client to take the last of what was sent, once the connection is being closed.
LINGER = 10.0
#: The most bytes that one line of a handshake may have for `websockets`.
MOST_LINE = 8000


def whole(head: Head) -> bool:
    """Whether this is a whole handshake. Any other upgrade is an offer that nobody has to take: it is ignored."""
    if (head.method, head.version, head.length, head.upgrade) != ("GET", "1.1", 0, b"websocket"):
        return False
    given: dict[bytes, list[bytes]] = {}
    for name, value in head.headers:
        given.setdefault(name, []).append(value)
        if len(name) + len(value) > MOST_LINE:
            return False
    if given.get(b"sec-websocket-version") != [b"13"] or len(head.raw_path) + len(head.query) > MOST_LINE:
        return False
    keys = given.get(b"sec-websocket-key", [])
    try:
        return len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        return False


class WebSockets(WebSocketsSansIOProtocol):
    """One connection. `leave` is called when it has ended; `check` now and then, as of all connections."""

    leave: Callable[[], None] | None = None
    _closing_since: float | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.leave is not None:
            self.leave()
            self.leave = None

    def check(self, now: float) -> None:
        """End what does not end by itself: a client that takes nothing more would keep it open for ever."""
        if not self.transport.is_closing():
            return
        if self._closing_since is None:
            self._closing_since = now
        elif now - self._closing_since > LINGER:
            self.transport.abort()

    def handle_ping(self) -> None:
        """Answer, unless the client reads no answers: RFC 6455 lets the last pong stand for all before it."""
        output = self.conn.data_to_send()
        if self.writable.is_set():
            self.transport.write(b"".join(output))

    def handle_cont(self, event: Frame) -> None:
        """The next fragment of a message. Empty ones are endless, and many small ones large."""
        if event.data or event.fin:
            super().handle_cont(event)
        if len(self.frames) > MOST_FRAGMENTS:
            self.frames = [b"".join(self.frames)]

    async def send(self, message: Any) -> None:
        """Raises ClientDisconnect once nobody is there, whatever the application wanted to say."""
        if self.transport.is_closing():
            raise ClientDisconnect
        try:
            await super().send(message)
        except ClientDisconnected as error:
            raise ClientDisconnect from error
        # uvicorn takes a WebSocket that the application refused with an answer for one that was never answered.
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True
