"""Waiting in tests: for what has to happen, never for a time to pass."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def eventually(check: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """The first truthy result of a check, which may be a coroutine function; fails with what was waited for.

    The longer it takes, the less often it looks: looking takes processors from those that are waited for.
    """
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < seconds:
        found = check()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(min(max(0.02, waited / 20), 0.5))
    raise AssertionError(f"did not happen within {seconds} s: {what}")
