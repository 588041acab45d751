"""Helpers for asyncio: wait with a time limit, end tasks reliably, leave no threads behind."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds after which a task that still runs is cancelled again.
AGAIN = 0.5


async def happens(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until the event is set, for at most `seconds` (None: for ever). Returns whether it was set."""
    try:
        async with asyncio.timeout(seconds):  # wait_for may swallow a cancellation in Python 3.11
            await event.wait()
    except TimeoutError:
        return False
    return True


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended. Their results and errors are ignored.

    They are cancelled repeatedly, because `asyncio.wait_for` of Python 3.11 may lose a cancellation.
    """
    all_ = list(tasks)
    left = {task for task in all_ if not task.done()}
    try:
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=AGAIN)
    finally:  # also if the caller is cancelled meanwhile
        for task in all_:
            if task.done() and not task.cancelled():
                task.exception()  # retrieve it, so that asyncio does not log it


def heed_cancellation() -> None:
    """Raise CancelledError if the current task was cancelled, but a call has swallowed the cancellation.

    Use it after calls that use `asyncio.wait_for` of Python 3.11, such as those of nats-py.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Finish `work`, although a task that ends is cancelled again every half second (`end`). So `work` has to end by
    itself. The caller has to raise CancelledError afterwards.
    """
    task = asyncio.create_task(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    await task


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Like `asyncio.to_thread`, but a cancellation takes effect only after the thread has ended."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await wait_until_done(work)
        raise


async def wait_until_done(work: asyncio.Future[Any]) -> None:
    """Wait until it has ended, also if the caller is cancelled meanwhile. The caller has to raise CancelledError."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
