"""Limits how many domains are started at the same time. After a boot of the host, all of them are due together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: Seconds after which a start gives up its slot, finished or not, so that one that hangs does not delay the others.
LONGEST = 10.0


class StartSlots:
    """`number` slots, given out in the order of the requests."""

    def __init__(self, number: int) -> None:
        self._free = asyncio.Semaphore(number)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a slot and hold it inside the block, for at most LONGEST seconds."""
        await self._free.acquire()
        given_up = asyncio.get_running_loop().call_later(LONGEST, self._free.release)
        try:
            yield
        finally:
            if given_up.when() > asyncio.get_running_loop().time():
                given_up.cancel()
                self._free.release()
