"""How a role stops: on SIGTERM or SIGINT, within some seconds, whatever is unreachable.

Its own work ends by cancellation. Tasks of libraries may lose a cancellation, and a thread that waits for a server
cannot be cancelled, so the end of the process must not depend on either.
"""

import asyncio
import os
import signal
import sys
import threading
import traceback
from collections.abc import Coroutine
from typing import Any

from runtime import logs
from runtime.tasks.tasks import end

log = logs.get(__name__)

#: Seconds from the signal until a process that has not ended by itself ends without cleaning up. Supervisors send
#: SIGKILL later (`STOP_SECONDS` in `runtime/local/child.py`, the units in `deploy/`, `compose.yaml`).
GRACE = 8.0
#: The exit status of a process that has not ended by itself.
FORCED = 3


def on_signals(stop: asyncio.Event, grace: float = GRACE) -> None:
    """Set `stop` on SIGTERM or SIGINT. A process that still runs `grace` seconds later is ended, and the log says what
    it was waiting for.
    """
    loop = asyncio.get_running_loop()

    def begin() -> None:
        if not stop.is_set():
            timer = threading.Timer(grace, force, (loop,))
            timer.daemon = True
            timer.start()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, begin)


def force(loop: asyncio.AbstractEventLoop) -> None:
    """Log what still runs, and end the process."""
    try:
        log.error("the role did not stop in time; it is ended", tasks=running_tasks(loop), threads=running_threads())
    finally:
        os._exit(FORCED)


def running_tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """The tasks of a loop of another thread, each with the place where it waits."""
    try:
        return [repr(task) for task in asyncio.all_tasks(loop) if not task.done()]
    except RuntimeError:  # the loop changed them meanwhile
        return []


def running_threads() -> list[str]:
    """The other threads, each with the line at which it is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    lines = []
    for ident, frame in sys._current_frames().items():
        if ident != own:
            where = traceback.extract_stack(frame)[-1]
            lines.append(f"{names.get(ident, ident)}: {where.filename}:{where.lineno} {where.name}")
    return lines


async def to_its_end(program: Coroutine[Any, Any, None]) -> None:
    """Run a role's program, then end all tasks that it and its libraries have left.

    The event loop would cancel them once only, and then wait for ever for a task that has lost the cancellation.
    """
    try:
        await program
    finally:
        await end(asyncio.all_tasks() - {asyncio.current_task()})
