"""Rotates log files to which programs append: a file that is too large is copied, and then truncated.

The programs keep their files open, so a file cannot be replaced. They append (O_APPEND), so each continues at the new
end. A line that is written between the copy and the truncation is lost.
"""

import asyncio
import shutil
from pathlib import Path

from runtime import logs
from runtime.images.disk_room import is_full

log = logs.get(__name__)

MIB = 1024**2
#: Number of copies that are kept; `x.log.1` is the newest.
KEPT = 4
#: Seconds between two checks.
EVERY = 10.0


async def keep_small(folder: Path, most_bytes: float) -> None:
    """Rotate all `*.log` files in the folder that have more than `most_bytes`, regularly and for ever."""
    while True:
        for file in sorted(folder.glob("*.log")):
            try:
                await asyncio.to_thread(rotate, file, most_bytes)
            except OSError as error:  # for example a full disk; try again at the next check
                log.warning("cannot rotate a log file", file=str(file), error=error.strerror)
        await asyncio.sleep(EVERY)


def rotate(file: Path, most_bytes: float) -> bool:
    """Copy the file and truncate it, if it has more than `most_bytes`. Returns whether it did. Raises OSError.

    If the disk is full, the oldest copies are deleted until there is space for the new one.
    """
    if file.stat().st_size <= most_bytes:
        return False
    copies = [file.with_name(f"{file.name}.{number}") for number in range(1, KEPT + 1)]
    new = file.with_name(f"{file.name}.new")
    while True:
        try:
            with file.open("r+b") as source, new.open("wb") as copy:
                new.chmod(0o600)
                while source.tell() < file.stat().st_size:  # the file may grow meanwhile
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
