"""Opens the serial console and the display of a running guest, each on its own connection to libvirt."""

import asyncio
import socket
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import libvirt

from node_daemon.hypervisor.channels import Console, Display
from node_daemon.hypervisor.connections import on_thread, open_connection
from node_daemon.hypervisor.domain_xml import NAMESPACE, parse_tag
from node_daemon.hypervisor.hypervisor import Busy, Refused, Unreachable

C = TypeVar("C", Console, socket.socket)


class Reach:
    """Opens consoles and displays as `hypervisor.Hypervisor` specifies."""

    def __init__(self, uri: str, deadline: float) -> None:
        self._uri = uri
        self._deadline = deadline
        self._consoles: WeakValueDictionary[str, Console] = WeakValueDictionary()

    async def console(self, vm: str, *, force: bool) -> Console:
        last = self._consoles.get(vm)
        force = force or (last is not None and last.is_closing)  # it is closed, but libvirt has not ended it yet
        try:
            console = await self._opened(on_thread(open_console, self._uri, asyncio.get_running_loop(), vm, force))
        except libvirt.libvirtError as error:
            kind = Busy if error.get_error_code() == libvirt.VIR_ERR_OPERATION_FAILED else Refused
            raise kind(str(error)) from error
        self._consoles[vm] = console
        return console

    async def display(self, vm: str) -> Display:
        try:
            return await Display.over(await self._opened(on_thread(open_display, self._uri, vm)))
        except libvirt.libvirtError as error:
            raise Refused(str(error)) from error

    async def _opened(self, opening: "asyncio.Future[C]") -> C:
        """Wait for what is being opened. Raises Unreachable after the deadline; it is then closed once it is open."""
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.shield(opening)
        except (TimeoutError, asyncio.CancelledError) as error:
            opening.add_done_callback(_release)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise Unreachable(f"libvirt did not return within {self._deadline:.0f} s") from None


def _release(opened: "asyncio.Future[C]") -> None:
    """Close what was opened after the deadline."""
    if not opened.cancelled() and opened.exception() is None:
        late = opened.result()
        on_thread(late.release if isinstance(late, Console) else late.close)


# ── blocking calls, on a thread ─────────────────────────────────────────────────────────────────────────────────────


def open_console(uri: str, loop: asyncio.AbstractEventLoop, vm: str, force: bool) -> Console:
    """Open the domain's serial console. Raises Unreachable, Refused and libvirtError."""
    connection = _connection_to(uri)
    try:
        domain = ours(connection, vm)
        stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE if force else 0)
        return Console(loop, connection, stream)
    except Exception:
        connection.close()
        raise


def open_display(uri: str, vm: str) -> socket.socket:
    """A connection to the domain's VNC server, opened by libvirt. Raises Unreachable, Refused and libvirtError."""
    connection = _connection_to(uri)
    try:
        descriptor = ours(connection, vm).openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
    finally:
        connection.close()
    return socket.socket(fileno=descriptor)


def _connection_to(uri: str) -> Any:
    try:
        return open_connection(uri)
    except libvirt.libvirtError as error:
        raise Unreachable(str(error)) from error


def ours(connection: Any, vm: str) -> Any:
    """The domain of that VM. Raises libvirtError if there is none or it has no tag, Refused if its tag is malformed."""
    domain = connection.lookupByUUIDString(vm)
    try:
        parse_tag(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))
    except ValueError as error:
        raise Refused("Nebula did not create this domain") from error
    return domain
