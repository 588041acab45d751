"""File locks: one process holds a lock at a time. The kernel releases it when the process ends in any way."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

#: Seconds between two tries to get the lock.
LOOK = 0.25


class Held(Exception):
    """Another process holds the lock. `holder`: its process id, or "unknown"."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by process {holder}")
        self.holder = holder


def lock(path: Path, *, wait: bool = False) -> IO[bytes]:
    """Hold the lock until the returned file is closed or the process ends. `wait`: block until it is free.

    Raises Held if another process has it, OSError.
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
    with contextlib.suppress(OSError):  # the lock is held, even if a full disk prevents writing the process id
        file.truncate(0)
        file.write(str(os.getpid()).encode())
    return file


@asynccontextmanager
async def turn(path: Path) -> AsyncIterator[None]:
    """Wait until no other process holds the lock, and hold it inside the block. Raises OSError."""
    while True:
        try:
            file = lock(path)
            break
        except Held:
            await asyncio.sleep(LOOK)
    with file:
        yield
