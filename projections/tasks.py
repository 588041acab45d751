"""End tasks for certain."""

import asyncio
from typing import Any

#: Seconds until a task that is still there is cancelled again.
AGAIN = 0.5


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended, whatever they end with.

    Once is not enough: `asyncio.wait_for` of Python 3.11 forgets a cancellation that meets a result.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that nobody is warned of it
