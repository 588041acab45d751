"""What libvirt tells by itself: the events of domains, on a connection of its own that is watched."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import libvirt

from node_daemon.connections import on_thread, open_connection
from node_daemon.hypervisor import Nudge
from runtime import logs
from runtime.tasks import happens

log = logs.get(__name__)

#: Seconds between looks whether the connection that carries the events still lives, and between tries to get one.
WATCH_SECONDS = 1.0


async def watch(uri: str, deadline: float, nudge: Nudge) -> None:
    """Call `nudge` for each event of a domain, for ever; without a domain when libvirt is away, or is back."""
    away = False
    while True:
        gone = asyncio.Event()
        try:
            async with asyncio.timeout(deadline):
                connection, callback = await on_thread(_listen, uri, asyncio.get_running_loop(), nudge, gone)
        except (libvirt.libvirtError, TimeoutError) as error:
            if not away:
                log.warning("libvirt is away", uri=uri, error=str(error))
                nudge(None)
            away = True
            await asyncio.sleep(WATCH_SECONDS)
            continue
        log.info("libvirt is back" if away else "libvirt answers", uri=uri)
        away = False
        nudge(None)
        try:
            while connection.isAlive() and not await happens(gone, WATCH_SECONDS):
                pass
        finally:
            on_thread(_stop_listening, connection, callback)


def _listen(uri: str, loop: asyncio.AbstractEventLoop, nudge: Nudge, gone: asyncio.Event) -> tuple[Any, int]:
    """A connection that calls `nudge` for each event of a domain, and sets `gone` when its other end is lost.

    With it the number of its callback, to stop it.
    """

    def tell(call: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(call, *args)

    connection = open_connection(uri)
    try:
        callback = connection.domainEventRegisterAny(
            None,
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            lambda _connection, domain, _event, _detail, _opaque: tell(nudge, domain.UUIDString()),
            None,
        )
        with contextlib.suppress(libvirt.libvirtError):  # local drivers have no other end to lose
            connection.registerCloseCallback(lambda *_: tell(gone.set), None)
    except libvirt.libvirtError:
        connection.close()
        raise
    return connection, callback


def _stop_listening(connection: Any, callback: int) -> None:
    """Close it. A callback that stays registered would keep it open."""
    for call in (
        lambda: connection.domainEventDeregisterAny(callback),
        connection.unregisterCloseCallback,
        connection.close,
    ):
        with contextlib.suppress(libvirt.libvirtError):
            call()
