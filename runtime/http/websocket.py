"""uvicorn's WebSocket protocol with limits: for fragments, for pongs that are not read, and for the time to close."""

import base64
import binascii
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from runtime.http.head import Head

#: Maximum number of separate fragments of one message in memory; then they are joined.
MOST_FRAGMENTS = 1024
#: Seconds for a client to read the last bytes while the connection is closed.
LINGER = 10.0
#: Maximum number of bytes of one line of a handshake that the library `websockets` accepts.
MOST_LINE = 8000


def is_handshake(head: Head) -> bool:
    """Whether this is a complete WebSocket handshake. Any other Upgrade header is ignored, which HTTP allows."""
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
    """One connection. `leave` is called when it has ended; `check` regularly, as for all connections."""

    leave: Callable[[], None] | None = None
    _closing_since: float | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.leave is not None:
            self.leave()
            self.leave = None

    def check(self, now: float) -> None:
        """Abort a connection that is not closed in time: a client that reads nothing would keep it open for ever."""
        if not self.transport.is_closing():
            return
        if self._closing_since is None:
            self._closing_since = now
        elif now - self._closing_since > LINGER:
            self.transport.abort()

    def handle_ping(self) -> None:
        """Answer a ping, unless the client does not read: by RFC 6455 a later pong answers all earlier pings."""
        output = self.conn.data_to_send()
        if self.writable.is_set():
            self.transport.write(b"".join(output))

    def handle_cont(self, event: Frame) -> None:
        """Take the next fragment of a message. Empty ones are ignored, and many small ones are joined."""
        if event.data or event.fin:
            super().handle_cont(event)
        if len(self.frames) > MOST_FRAGMENTS:
            self.frames = [b"".join(self.frames)]

    async def send(self, message: Any) -> None:
        """Send a message. Raises ClientDisconnect once the client has left."""
        if self.transport.is_closing():
            raise ClientDisconnect
        try:
            await super().send(message)
        except ClientDisconnected as error:
            raise ClientDisconnect from error
        # Without this, uvicorn assumes that a WebSocket that the application refused with an answer was not answered.
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True
