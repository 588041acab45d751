"""What libvirt tells by itself: the events of domains, on a connection of its own that is watched."""

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

#: Seconds between looks whether the connection that carries the events still lives, and between tries to get one.
WATCH_SECONDS = 1.0
#: What watchdogs of ours do, in libvirt's words.
_ACTIONS = {
    libvirt.VIR_DOMAIN_EVENT_WATCHDOG_RESET: Watchdog.RESET,
    libvirt.VIR_DOMAIN_EVENT_WATCHDOG_POWEROFF: Watchdog.POWEROFF,
}


@dataclass(frozen=True)
class Listener:
    """Who is told what: of any event of a domain, of a reset of its guest, of its watchdog."""

    nudge: Nudge
    reset: Reset
    fired: Fired


async def watch(uri: str, deadline: float, listener: Listener) -> None:
    """Tell of each event of a domain, for ever. It nudges without a domain when libvirt is away, or is back."""
    nudge = listener.nudge
    away = False
    while True:
        gone = asyncio.Event()
        try:
            async with asyncio.timeout(deadline):
                connection, callbacks = await on_thread(_listen, uri, asyncio.get_running_loop(), listener, gone)
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
    uri: str, loop: asyncio.AbstractEventLoop, listener: Listener, gone: asyncio.Event
) -> tuple[Any, list[int]]:
    """A connection that tells of events of domains, and sets `gone` when its other end is lost.

    With it the numbers of its callbacks, to stop them.
    """

    def tell(call: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(call, *args)

    def fired(_: Any, domain: Any, action: int, _more: Any) -> None:
        if action in _ACTIONS:
            tell(listener.fired, domain.UUIDString(), _ACTIONS[action])

    connection = open_connection(uri)
    try:
        heard: dict[int, Callable[..., None]] = {
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: lambda _, domain, *_more: tell(listener.nudge, domain.UUIDString()),
            libvirt.VIR_DOMAIN_EVENT_ID_REBOOT: lambda _, domain, *_more: tell(listener.reset, domain.UUIDString()),
            libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG: fired,
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
