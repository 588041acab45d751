"""How many domains are started at a time. After a boot of the host all of them are to be, at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: Seconds after which a start gives up its place, done or not: those that hang hold up nobody else for longer.
LONGEST = 10.0


class StartSlots:
    """`number` of them, taken in the order of asking."""

    def __init__(self, number: int) -> None:
        self._free = asyncio.Semaphore(number)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a place, and hold it while inside, but not for too long."""
        await self._free.acquire()
        given_up = asyncio.get_running_loop().call_later(LONGEST, self._free.release)
        try:
            yield
        finally:
            if given_up.when() > asyncio.get_running_loop().time():
                given_up.cancel()
                self._free.release()
