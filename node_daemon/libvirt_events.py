"""What libvirt tells by itself: the events of domains, on a connection of its own that is watched."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import libvirt

from node_daemon.connections import on_thread, open_connection
from node_daemon.hypervisor import Nudge, Reset
from runtime import logs
from runtime.tasks import happens

log = logs.get(__name__)

#: Seconds between looks whether the connection that carries the events still lives, and between tries to get one.
WATCH_SECONDS = 1.0


async def watch(uri: str, deadline: float, nudge: Nudge, reset: Reset) -> None:
    """Call `nudge` for each event of a domain, for ever; without a domain when libvirt is away, or is back.

    And `reset` when its guest has reset itself.
    """
    away = False
    while True:
        gone = asyncio.Event()
        try:
            async with asyncio.timeout(deadline):
                connection, callbacks = await on_thread(_listen, uri, asyncio.get_running_loop(), nudge, reset, gone)
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
            on_thread(_stop_listening, connection, callbacks)


def _listen(
    uri: str, loop: asyncio.AbstractEventLoop, nudge: Nudge, reset: Reset, gone: asyncio.Event
) -> tuple[Any, list[int]]:
    """A connection that calls `nudge` and `reset` for events of domains, and sets `gone` when its other end is lost.

    With it the numbers of its callbacks, to stop them.
    """

    def tell(call: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(call, *args)

    connection = open_connection(uri)
    try:
        heard = {
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: lambda _, domain, *_more: tell(nudge, domain.UUIDString()),
            libvirt.VIR_DOMAIN_EVENT_ID_REBOOT: lambda _, domain, *_more: tell(reset, domain.UUIDString()),
        }
        callbacks = [connection.domainEventRegisterAny(None, kind, call, None) for kind, call in heard.items()]
        with contextlib.suppress(libvirt.libvirtError):  # local drivers have no other end to lose
            connection.registerCloseCallback(lambda *_: tell(gone.set), None)
    except libvirt.libvirtError:
        connection.close()
        raise
    return connection, callbacks


def _stop_listening(connection: Any, callbacks: list[int]) -> None:
    """Close it. A callback that stays registered would keep it open."""
    for call in (
        *(partial(connection.domainEventDeregisterAny, callback) for callback in callbacks),
        connection.unregisterCloseCallback,
        connection.close,
    ):
        with contextlib.suppress(libvirt.libvirtError):
            call()
