"""The events of domains that libvirt sends, on a connection of their own."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import libvirt

from domain.contract import Watchdog
from node_daemon.hypervisor.connections import on_thread, open_connection
from node_daemon.hypervisor.hypervisor import Fired, Nudge, Reset
from runtime import logs
from runtime.tasks.tasks import happens

log = logs.get(__name__)

#: Seconds between checks of the connection, and between tries to open it.
WATCH_SECONDS = 1.0
#: The watchdog actions that our domains use, by libvirt's number.
_ACTIONS = {
    libvirt.VIR_DOMAIN_EVENT_WATCHDOG_RESET: Watchdog.RESET,
    libvirt.VIR_DOMAIN_EVENT_WATCHDOG_POWEROFF: Watchdog.POWEROFF,
}


@dataclass(frozen=True)
class Listener:
    """The callbacks: for any event of a domain, for a reset of its guest, and for its watchdog."""

    nudge: Nudge
    reset: Reset
    fired: Fired


async def watch(uri: str, deadline: float, listener: Listener) -> None:
    """Call the listener for each event of a domain, for ever. Nudges with None when libvirt stops
    or starts to answer.
    """
    nudge = listener.nudge
    unreachable = False
    while True:
        closed = asyncio.Event()
        try:
            async with asyncio.timeout(deadline):
                connection, callbacks = await on_thread(_listen, uri, asyncio.get_running_loop(), listener, closed)
        except (libvirt.libvirtError, TimeoutError) as error:
            if not unreachable:
                log.warning("libvirt does not answer", uri=uri, error=str(error))
                nudge(None)
            unreachable = True
            await asyncio.sleep(WATCH_SECONDS)
            continue
        log.info("libvirt answers again" if unreachable else "libvirt answers", uri=uri)
        unreachable = False
        nudge(None)
        try:
            while connection.isAlive() and not await happens(closed, WATCH_SECONDS):
                pass
        finally:
            on_thread(_stop_listening, connection, callbacks)


def _listen(
    uri: str, loop: asyncio.AbstractEventLoop, listener: Listener, closed: asyncio.Event
) -> tuple[Any, list[int]]:
    """A connection that delivers the events of domains and sets `closed` when it is lost; and the ids of its callbacks.

    Blocks. Raises libvirtError.
    """

    def post(call: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(call, *args)

    def fired(_: Any, domain: Any, action: int, _more: Any) -> None:
        if action in _ACTIONS:
            post(listener.fired, domain.UUIDString(), _ACTIONS[action])

    connection = open_connection(uri)
    try:
        handlers: dict[int, Callable[..., None]] = {
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: lambda _, domain, *_more: post(listener.nudge, domain.UUIDString()),
            libvirt.VIR_DOMAIN_EVENT_ID_REBOOT: lambda _, domain, *_more: post(listener.reset, domain.UUIDString()),
            libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG: fired,
        }
        callbacks = [connection.domainEventRegisterAny(None, kind, call, None) for kind, call in handlers.items()]
        with contextlib.suppress(libvirt.libvirtError):  # local drivers do not support it
            connection.registerCloseCallback(lambda *_: post(closed.set), None)
    except libvirt.libvirtError:
        connection.close()
        raise
    return connection, callbacks


def _stop_listening(connection: Any, callbacks: list[int]) -> None:
    """Close the connection. A callback that is still registered would keep it open."""
    for call in (
        *(partial(connection.domainEventDeregisterAny, callback) for callback in callbacks),
        connection.unregisterCloseCallback,
        connection.close,
    ):
        with contextlib.suppress(libvirt.libvirtError):
            call()
