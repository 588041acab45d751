"""What asyncio makes easy to get wrong: waiting with a limit, ending tasks for certain, leaving threads behind."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds until a task that is still there is cancelled again.
AGAIN = 0.5


async def happens(event: asyncio.Event, seconds: float | None) -> bool:
    """Whether the event is set within that time; None waits for ever."""
    try:
        async with asyncio.timeout(seconds):  # wait_for may swallow a cancellation in Python 3.11
            await event.wait()
    except TimeoutError:
        return False
    return True


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended, whatever they end with.

    Once is not enough: `asyncio.wait_for` of Python 3.11 forgets a cancellation that meets a result.
    """
    all_ = list(tasks)
    left = {task for task in all_ if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
    for task in all_:
        if not task.cancelled():
            task.exception()  # looked at, so that nobody is warned of it


def heed_cancellation() -> None:
    """Raise CancelledError where the running task was cancelled and what it awaited has swallowed that.

    For behind calls that use `asyncio.wait_for` of Python 3.11, such as those of nats-py.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """As `asyncio.to_thread`, but whoever is cancelled meanwhile leaves no thread behind that goes on working."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await ended(work)
        raise


async def ended(work: asyncio.Future[Any]) -> None:
    """Wait until it has ended, whatever with, however often whoever waits is cancelled."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
