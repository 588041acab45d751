"""Log files that programs append to are kept small: what is full is copied aside, and the file is cut to nothing.

The programs keep their files open, so a file cannot be replaced under them. All of them append (O_APPEND), so each goes
on at the new end. A line that is written between the last look and the cut is lost.
"""

import asyncio
import shutil
from pathlib import Path

from runtime import logs

log = logs.get(__name__)

MIB = 1024**2
#: Copies of a full file that are kept: `x.log.1` is the newest.
KEPT = 4
#: Seconds between looks.
EVERY = 10.0


async def keep_small(folder: Path, most_bytes: float) -> None:
    """Look at all `*.log` in the folder every so many seconds, for ever."""
    while True:
        for file in sorted(folder.glob("*.log")):
            try:
                await asyncio.to_thread(rotate, file, most_bytes)
            except OSError as error:  # a full disk is no reason to stop: there is nothing else to do about it
                log.warning("a log file was not rotated", file=str(file), error=error.strerror)
        await asyncio.sleep(EVERY)


def rotate(file: Path, most_bytes: float) -> bool:
    """Copy the file aside and empty it, where it holds more than that. Whether it did. Raises OSError."""
    if file.stat().st_size <= most_bytes:
        return False
    for number in range(KEPT, 1, -1):
        older = file.with_name(f"{file.name}.{number - 1}")
        if older.exists():
            older.replace(file.with_name(f"{file.name}.{number}"))
    newest = file.with_name(f"{file.name}.1")
    with file.open("r+b") as source, newest.open("wb") as copy:
        newest.chmod(0o600)
        while source.tell() < file.stat().st_size:  # it grows meanwhile
            shutil.copyfileobj(source, copy)
        source.truncate(0)
    return True
