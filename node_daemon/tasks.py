"""Two things that asyncio makes easy to get wrong: waiting with a limit, and ending tasks for certain."""

import asyncio
from collections.abc import Iterable


async def happens(event: asyncio.Event, seconds: float | None) -> bool:
    """Whether the event is set within that time; None waits for ever."""
    try:
        async with asyncio.timeout(seconds):  # wait_for may swallow a cancellation in Python 3.11
            await event.wait()
    except TimeoutError:
        return False
    return True


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they are over. A library may swallow a cancellation, so it is repeated."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)
