"""Runs a server of a cluster until it ends or cannot store any more: `nebula bus run`, for a service manager.

nats-server stops JetStream when its disk is full, and does not begin again when there is room. So it is ended then, and
whoever started this process starts it again.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path

from runtime.local import copies, full_disk
from runtime.local.child import ServerError
from runtime.tasks.tasks import end

#: Signals that are passed on: to read the configuration again, to hand over and end, to end.
PASSED_ON = (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
_LINE = 1024 * 1024


async def run(store: Path, argv: Sequence[str]) -> int:
    """Run the server on this store (`NEBULA_NATS_STORE`). Returns its exit status, or 1 if it could not store any more.

    Raises ServerError if the store lacks a part of the log, OSError if it cannot be started.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in PASSED_ON[1:]:
        loop.add_signal_handler(number, stopped.set)
    if await _unless(stopped, full_disk.has_room(existing(store))):
        return 0
    if found := copies.faults(store):
        raise ServerError("; ".join([*found, f"remove {store}, so that the server copies all streams from the others"]))
    guarded = ["setpriv", "--pdeathsig", "TERM", "--", *argv]  # two servers on one store would destroy it
    process = await asyncio.create_subprocess_exec(*guarded, stderr=asyncio.subprocess.PIPE, limit=_LINE)

    def pass_on(number: signal.Signals) -> None:
        if number is not signal.SIGHUP:
            stopped.set()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    for number in PASSED_ON:
        loop.add_signal_handler(number, pass_on, number)
    assert process.stderr is not None
    full = asyncio.Event()
    reading = asyncio.create_task(_pass_on(process.stderr, full))
    ending = asyncio.create_task(_end(process, store, full))
    try:
        status = await process.wait()
        await reading  # its last lines
    finally:
        await end([reading, ending])
    return 1 if full.is_set() and not stopped.is_set() else max(status, 0)


def existing(folder: Path) -> Path:
    """This folder, or the nearest one above it that exists."""
    return next(each for each in (folder, *folder.absolute().parents) if each.exists())


async def _unless(stopped: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Wait for the end of some work; returns whether it was stopped before."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
    await end([working, waiting])
    return stopped.is_set()


async def _pass_on(lines: asyncio.StreamReader, full: asyncio.Event) -> None:
    """Write what the server says to our own standard error."""
    while True:
        try:
            line = await lines.readuntil(b"\n")
        except asyncio.IncompleteReadError as rest:
            line = rest.partial
        except asyncio.LimitOverrunError as long:
            line = await lines.readexactly(long.consumed)
        if not line:
            return
        with contextlib.suppress(OSError):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
        if full_disk.gave_up(line):
            full.set()


async def _end(process: asyncio.subprocess.Process, store: Path, full: asyncio.Event) -> None:
    """End the server once it cannot store and there is room again."""
    await full.wait()
    await full_disk.has_room(store)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
