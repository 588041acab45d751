"""Log files that programs append to are kept small: what is full is copied aside, and the file is cut to nothing.

The programs keep their files open, so a file cannot be replaced under them. All of them append (O_APPEND), so each goes
on at the new end. A line that is written between the last look and the cut is lost.
"""

import asyncio
import shutil
from pathlib import Path

from runtime import logs
from runtime.images.disk_room import is_full

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
    """Copy the file aside and empty it, where it holds more than that. Whether it did. Raises OSError.

    Where the disk is full, the oldest copies go until there is room for the new one.
    """
    if file.stat().st_size <= most_bytes:
        return False
    copies = [file.with_name(f"{file.name}.{number}") for number in range(1, KEPT + 1)]
    new = file.with_name(f"{file.name}.new")
    while True:
        try:
            with file.open("r+b") as source, new.open("wb") as copy:
                new.chmod(0o600)
                while source.tell() < file.stat().st_size:  # it grows meanwhile
                    shutil.copyfileobj(source, copy)
                copy.flush()
                source.truncate(0)
            break
        except OSError as error:
            new.unlink(missing_ok=True)
            oldest = next((each for each in reversed(copies) if each.exists()), None)
            if not is_full(error) or oldest is None:
                raise
            oldest.unlink()
    for older, newer in zip(reversed(copies), reversed([new, *copies[:-1]]), strict=True):
        if newer.exists():
            newer.replace(older)
    return True
