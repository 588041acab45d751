"""A file that one process holds at a time. The kernel drops the lock with its process, however that ends."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

#: Seconds between looks whether another process is done.
LOOK = 0.25


class Held(Exception):
    """Another process holds the lock. `holder` is its number, where that is known."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by process {holder}")
        self.holder = holder


def lock(path: Path, *, wait: bool = False) -> IO[bytes]:
    """Hold the lock until the file returned is closed or the process ends.

    Raises Held where another process has it, unless this one shall wait for it; and OSError.
    """
    file = path.open("a+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            holder = file.read(20).decode(errors="replace").strip()
            raise Held(path, holder or "unknown") from None
    except BaseException:
        file.close()
        raise
    with contextlib.suppress(OSError):  # a full disk is no reason not to hold it
        file.truncate(0)
        file.write(str(os.getpid()).encode())
    return file


@asynccontextmanager
async def turn(path: Path) -> AsyncIterator[None]:
    """Wait until no other process holds the lock, and hold it. Raises OSError."""
    while True:
        try:
            file = lock(path)
            break
        except Held:
            await asyncio.sleep(LOOK)
    with file:
        yield
