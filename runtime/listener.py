"""An HTTP listener within a process that does other work too. It does not handle signals, and stops on an event."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from runtime import logs
from runtime.http.census import Census
from runtime.http.connection import Connection, Listener
from runtime.http.limits import Limits

log = logs.get(__name__)

RETRY_SECONDS = 1.0
#: Seconds for which open requests and streams may continue after the stop.
GRACE_SECONDS = 2


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None, handshake: float) -> None:
        super().__init__(config)
        self._tls, self._handshake = tls, handshake

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Like uvicorn's, which offers no limit for the time of a TLS handshake."""
        if self._tls is None or sockets is None:
            await super().startup(sockets)
            return
        protocol: Any = self.config.http_protocol_class
        make = partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                make, sock=sock, ssl=self._tls, ssl_handshake_timeout=self._handshake, backlog=self.config.backlog
            )
            for sock in sockets
        ]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError if the address does not exist or is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


async def bound(name: str, host: str, port: int) -> socket.socket:
    """Like `bind`, but wait until it succeeds: the address of a bridge may appear after our start."""
    logged = False
    while True:
        try:
            return bind(host, port)
        except OSError as error:
            if not logged:
                log.warning("cannot listen yet; it will try again", name=name, host=host, port=port, error=str(error))
                logged = True
        await asyncio.sleep(RETRY_SECONDS)


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    stop: asyncio.Event,
    limits: Limits | None = None,
    *,
    websockets: bool = False,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve until `stop` is set; open requests then have GRACE_SECONDS to end. `websockets`: the app accepts them.

    `tls`: all connections are encrypted with it.
    """
    limits = limits or Limits()
    census = Census(limits)
    http: Any = partial(Connection, Listener(limits, census, websockets))
    config = uvicorn.Config(
        app,
        http=http,
        ws="none",  # `Connection` starts uvicorn's WebSocket protocol itself
        ws_max_size=1024 * 1024,
        ws_per_message_deflate=False,  # their data are compressed already, or small
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # the client is the peer of the connection, whatever a header claims
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config, tls, limits.head_seconds)

    async def watch() -> None:
        await stop.wait()
        server.should_exit = True

    watchers = [asyncio.create_task(watch()), asyncio.create_task(census.watch())]
    try:
        await server.serve(sockets=[sock])
    finally:
        for watcher in watchers:
            watcher.cancel()
        sock.close()
