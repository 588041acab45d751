"""Blocking libvirt calls in an asyncio program: each runs on its own thread and connection, with a hard deadline.

libvirt serves few requests of one connection at a time, and may hang in any of them. So two calls never share a
connection. After its deadline, a call continues on its thread, and nothing waits for it.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

import libvirt

from node_daemon.hypervisor.hypervisor import Unreachable
from runtime import logs

log = logs.get(__name__)

T = TypeVar("T")

Outcome = tuple[Any, object, Exception | None]
"""The connection to reuse (None if it is broken), and the result or the error of a call."""

#: Maximum number of concurrent calls, for all VMs together: short calls; long calls, such as writing memory to disk;
#: and calls that wait for a guest. libvirtd has about 20 workers.
LIMIT, PATIENT, GUESTS = 24, 8, 4
#: Maximum number of idle connections to keep open.
IDLE = 8
#: Seconds between keepalive messages of libvirt on a connection, and how many may be missed.
KEEPALIVE = (5, 3)

_event_loop = threading.Lock()
_event_thread: threading.Thread | None = None


def run_event_loop() -> None:
    """Run libvirt's event loop on a thread, once per process. Connections that were opened before receive no events."""
    global _event_thread  # noqa: PLW0603  (libvirt's event loop is global to the process as well)
    with _event_loop:
        if _event_thread is not None:
            return
        libvirt.virEventRegisterDefaultImpl()
        _event_thread = threading.Thread(target=_run_for_ever, name="libvirt-events", daemon=True)
        _event_thread.start()


def _run_for_ever() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def on_thread(work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
    """Run `work` on its own thread. Neither the event loop nor the end of the process waits for the thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():  # it was cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        result, error = None, None
        try:
            result = work(*arguments)
        except Exception as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="libvirt-call", daemon=True).start()
    return future


def open_connection(uri: str) -> Any:
    """A new connection with keepalive messages. Blocks. Raises libvirt.libvirtError."""
    connection = libvirt.open(uri)
    with contextlib.suppress(libvirt.libvirtError):  # local drivers have no keepalive
        connection.setKeepAlive(*KEEPALIVE)
    return connection


class Connections:
    """Runs blocking calls, each on its own thread and connection. Idle connections are reused."""

    def __init__(self, uri: str, deadline: float) -> None:
        libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised; libvirt would also print them
        run_event_loop()
        self._uri = uri
        self._deadline = deadline
        self._idle: list[Any] = []
        self._slots, self._patient_slots = asyncio.Semaphore(LIMIT), asyncio.Semaphore(PATIENT)
        self._guest_slots = asyncio.Semaphore(GUESTS)
        self._hung: set[str] = set()

    async def call(
        self, key: str, work: Callable[[Any], T], patience: float | None = None, *, of_guest: bool = False
    ) -> T:
        """Run `work(connection)` on a thread. While a call with this `key` hangs, no other one with it is started.

        `patience`: the deadline in seconds of a call that may take long. `of_guest`: the call waits for a guest. Both
        kinds have slots of their own, so that they do not delay short calls.

        Raises Unreachable if the connection cannot be opened or breaks, or the deadline passes. Other errors of `work`
        are raised as they are (libvirtError if libvirt answers with an error).
        """
        if key in self._hung:
            raise Unreachable(f"an earlier call to libvirt on {key} still hangs")
        slots = self._guest_slots if of_guest else self._slots if patience is None else self._patient_slots
        async with slots:
            borrowed = self._idle.pop() if self._idle else None
            deadline = max(self._deadline, patience or 0.0)
            call = on_thread(_carry_out, self._uri, borrowed, work)
            call.add_done_callback(lambda _: self._returned(key, call))
            try:
                async with asyncio.timeout(deadline):
                    _, result, error = await asyncio.shield(call)
            except TimeoutError:
                self._hung.add(key)
                log.warning("a libvirt call hangs", key=key, deadline_s=deadline)
                raise Unreachable(f"libvirt did not return within {deadline:.0f} s") from None
            if error is not None:
                raise error
            return cast(T, result)

    def hangs(self, key: str) -> bool:
        """Whether a call with this key has not returned within its deadline, nor since."""
        return key in self._hung

    def _returned(self, key: str, call: "asyncio.Future[Outcome]") -> None:
        """Keep the connection of a call that has returned, in time or not."""
        self._hung.discard(key)
        connection, _, _ = call.result()
        if connection is None:
            return
        if len(self._idle) < IDLE:
            self._idle.append(connection)
        else:
            on_thread(_close, connection)

    def close(self) -> None:
        """Close all idle connections in the background."""
        while self._idle:
            on_thread(_close, self._idle.pop())


def _carry_out(uri: str, connection: Any, work: Callable[[Any], object]) -> Outcome:
    try:
        if connection is not None and not connection.isAlive():
            _close(connection)
            connection = None
        if connection is None:
            connection = open_connection(uri)
    except libvirt.libvirtError as error:
        return None, None, Unreachable(str(error))
    try:
        return connection, work(connection), None
    except libvirt.libvirtError as error:
        if _alive(connection):
            return connection, None, error
        _close(connection)
        return None, None, Unreachable(str(error))
    except Exception as error:
        return connection, None, error


def _alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _close(connection: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()
