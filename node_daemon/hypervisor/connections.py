"""Blocking libvirt calls for an asyncio program: a thread and a connection for each, and a hard deadline.

libvirt serves a few requests of one connection at a time and may hang in any of them. So a call never shares its
connection with another call, and one that passes its deadline is left to its thread: nobody waits behind it.
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
"""The connection to use again (None when it is broken), and the result or the error of a call."""

#: Calls under way at once, on all VMs together: those that are over soon; those that may take long, such as writing
#: memory to disk; and those that last as long as a guest likes, within limits. libvirtd has about 20 workers.
LIMIT, PATIENT, GUESTS = 24, 8, 4
#: Connections kept open between calls.
IDLE = 8
#: Seconds between libvirt's signs of life on a connection, and how many may be missed.
KEEPALIVE = (5, 3)

_event_loop = threading.Lock()
_event_thread: threading.Thread | None = None


def run_event_loop() -> None:
    """Run libvirt's event loop on a thread, once a process. Connections opened before that stay deaf."""
    global _event_thread  # noqa: PLW0603  (libvirt's event loop is global to the process as well)
    with _event_loop:
        if _event_thread is not None:
            return
        libvirt.virEventRegisterDefaultImpl()
        _event_thread = threading.Thread(target=_turn, name="libvirt-events", daemon=True)
        _event_thread.start()


def _turn() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def on_thread(work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
    """`work`, done on a thread of its own; neither the loop nor the end of the process waits for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():  # nobody waits any more
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
    """A new connection that notices when its other end is gone. Raises libvirt.libvirtError."""
    connection = libvirt.open(uri)
    with contextlib.suppress(libvirt.libvirtError):  # local drivers have no keepalive
        connection.setKeepAlive(*KEEPALIVE)
    return connection


class Connections:
    """Carries out blocking calls, each on a thread and a connection of its own."""

    def __init__(self, uri: str, deadline: float) -> None:
        libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised: no copies on stderr
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
        """`work(connection)`, on a thread. `key` names what it is about: while a call on it hangs, no other starts.
        `patience`: seconds that this one may take, where it is known to take long: it never keeps others waiting that
        are not. Nor does one that the guest has to answer (`of_guest`).

        Raises Unreachable when the connection cannot be had or breaks, or the deadline passes; what else `work`
        raises (libvirtError for an answer that says no) comes through.
        """
        if key in self._hung:
            raise Unreachable(f"an earlier call to libvirt on {key} still hangs")
        slots = self._guest_slots if of_guest else self._slots if patience is None else self._patient_slots
        async with slots:
            borrowed = self._idle.pop() if self._idle else None
            deadline = max(self._deadline, patience or 0.0)
            over = on_thread(_carry_out, self._uri, borrowed, work)
            over.add_done_callback(lambda _: self._over(key, over))
            try:
                async with asyncio.timeout(deadline):
                    _, result, error = await asyncio.shield(over)
            except TimeoutError:
                self._hung.add(key)
                log.warning("libvirt call hangs", about=key, deadline_s=deadline)
                raise Unreachable(f"libvirt did not return within {deadline:.0f} s") from None
            if error is not None:
                raise error
            return cast(T, result)

    def _over(self, key: str, call: "asyncio.Future[Outcome]") -> None:
        """A call returned, in time or not."""
        self._hung.discard(key)
        connection, _, _ = call.result()
        if connection is None:
            return
        if len(self._idle) < IDLE:
            self._idle.append(connection)
        else:
            on_thread(_close, connection)

    def close(self) -> None:
        """Let go of all idle connections, without waiting for it."""
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
