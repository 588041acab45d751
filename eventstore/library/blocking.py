"""A connection to NATS for blocking callers. It runs on its own event loop in its own thread."""

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, ParamSpec, TypeVar

from eventsourcing.persistence import InterfaceError
from nats.aio.client import Client
from nats.errors import Error as NatsError

from eventstore.library.settings import Settings
from eventstore.log.jetstream import Unavailable
from runtime.bus.quick_client import QuickClient
from runtime.tasks.tasks import end

log = logging.getLogger(__name__)  # the application's logging, which may not be structlog

P = ParamSpec("P")
T = TypeVar("T")


class Connection:
    """Any thread may use it. Its thread and connection start with the first call, and end with `close()`."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        # what follows belongs to the loop's thread
        self._tasks: set[asyncio.Task[Any]] = set()
        self._nc: Client | None = None
        self._connecting = asyncio.Lock()

    # ── for the callers' threads ────────────────────────────────────────────────────────────────────────────────

    def run(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call an async function on the connection's thread, and wait for its result.

        Raises the errors of the function; InterfaceError if the connection is closed.
        """
        future = self.submit(function, *args, **kwargs)
        try:
            return future.result()
        except CancelledError:
            raise InterfaceError("the connection to the log has been closed") from None
        except BaseException:
            future.cancel()
            raise

    def submit(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Like `run`, without waiting."""

        async def tracked() -> T:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                return await function(*args, **kwargs)
            finally:
                self._tasks.discard(task)

        with self._lock:
            loop = self._running()
            return asyncio.run_coroutine_threadsafe(tracked(), loop)

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function on the connection's thread later; never if the connection is closed."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """Cancel running calls, and end the connection and its thread. A repeat does nothing."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or not thread.is_alive() or sys.is_finalizing():
            return
        if thread is threading.current_thread():  # the garbage collector may call from anywhere
            loop.create_task(self._end()).add_done_callback(lambda _: loop.stop())
            return
        with contextlib.suppress(CancelledError):  # a running call may have cancelled `_end`, too
            asyncio.run_coroutine_threadsafe(self._end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise InterfaceError("the connection to the log is closed")
        if self._loop is None or self._thread is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
            self._thread.start()
        elif not self._thread.is_alive():
            raise InterfaceError("the connection to the log does not survive a fork: make the application after it")
        return self._loop

    # ── on the loop's thread ────────────────────────────────────────────────────────────────────────────────────

    async def client(self) -> Client:
        """The client, connected. Raises Unavailable if it is not connected within the timeout."""
        if self._nc is not None and self._nc.is_connected:
            return self._nc
        try:
            async with asyncio.timeout(self.settings.timeout), self._connecting:
                if self._nc is None or self._nc.is_closed:
                    self._nc = await self._connect()
                while not self._nc.is_connected:  # noqa: ASYNC110  (the client has no event for it)
                    await asyncio.sleep(0.02)
                return self._nc
        except (NatsError, OSError, TimeoutError) as error:
            where = ", ".join(url.rpartition("@")[2] for url in self.settings.servers)
            raise Unavailable(f"NATS does not answer at {where} ({error!r}): start it, or correct NATS_URL") from error

    async def _connect(self) -> Client:
        """Connect. While disconnected, the client buffers nothing: a send fails immediately."""
        nc = QuickClient()
        try:
            await nc.connect(
                servers=list(self.settings.servers),
                name=self._name,
                user_credentials=str(self.settings.creds) if self.settings.creds else None,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.1,  # type: ignore[arg-type]  # in seconds
                connect_timeout=2,
                ping_interval=5,
                max_outstanding_pings=2,
                pending_size=0,
                error_cb=_note,
            )
        except BaseException:
            await nc.close()
            raise
        return nc

    async def _end(self) -> None:
        await end(self._tasks - {asyncio.current_task()})
        if self._nc is not None:
            await self._nc.close()
        await asyncio.sleep(0)


async def _note(error: Exception) -> None:
    log.debug("bus error: %r", error)
