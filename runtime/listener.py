"""An HTTP listener inside a process that has other things to do: it leaves signals alone and stops when it is told."""

import asyncio
import contextlib
import socket
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
#: Seconds that open requests and streams get to end by themselves.
GRACE_SECONDS = 2


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError when the address is not there, or taken."""
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
    """The same, waiting until it can be had: a bridge's address may appear later than we do."""
    complained = False
    while True:
        try:
            return bind(host, port)
        except OSError as error:
            if not complained:
                log.warning("cannot listen yet; trying on", name=name, host=host, port=port, error=str(error))
                complained = True
        await asyncio.sleep(RETRY_SECONDS)


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    stop: asyncio.Event,
    limits: Limits | None = None,
    *,
    websockets: bool = False,
) -> None:
    """Serve until `stop` is set; open requests get a moment to end. WebSockets only where the app expects them."""
    limits = limits or Limits()
    census = Census(limits)
    http: Any = partial(Connection, Listener(limits, census, websockets))
    config = uvicorn.Config(
        app,
        http=http,
        ws="none",  # `Connection` hands over to it
        ws_max_size=1024 * 1024,
        ws_per_message_deflate=False,  # what goes over them is compressed already, or small
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # who calls is who connects, whatever a header claims
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)

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
