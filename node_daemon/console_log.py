"""What a guest wrote to its serial console: a file, and a few older ones beside it.

virtlogd writes them, moves a full file aside (`<vm>.log` to `<vm>.log.0`, that to `.1`, …) and drops the oldest; no
domain starts without it. Where the host's libvirt is told to let QEMU write by itself (`stdio_handler = "file"`),
nobody moves anything aside, and a guest could fill the disk: there, we do.
"""

import asyncio
import os
from pathlib import Path

from runtime import logs

log = logs.get(__name__)

#: Bytes at which a file is too large, twice what virtlogd lets one grow to; and of those the newest, which are kept.
MOST, KEPT = 4 * 1024 * 1024, 2 * 1024 * 1024
#: Seconds between two looks at the sizes.
LOOK = 5.0
PRIVATE = 0o600


def parts(newest: Path) -> list[Path]:
    """The files that hold a console, the oldest first."""
    older = [path for path in newest.parent.glob(f"{newest.name}.*") if path.suffix[1:].isdigit()]
    older.sort(key=lambda path: int(path.suffix[1:]), reverse=True)
    return [*older, newest] if newest.exists() else older


def remove(newest: Path) -> None:
    """Delete a console. Fine when there is none."""
    for path in parts(newest):
        path.unlink(missing_ok=True)


def trim(newest: Path) -> bool:
    """Move the end of a file that is too large aside, and empty it: its writer appends, and goes on. Whether it was."""
    size = newest.stat().st_size
    if size <= MOST:
        return False
    with newest.open("rb") as file:
        file.seek(size - KEPT)
        end = file.read(KEPT)
    aside = newest.with_name(f"{newest.name}.0")
    aside.touch(PRIVATE)
    aside.write_bytes(end)
    os.truncate(newest, 0)
    return True


async def keep_small(folder: Path) -> None:
    """Keep every console in a folder small. Never returns."""
    while True:
        try:
            for name in await asyncio.to_thread(trim_all, folder):
                log.info("console moved aside", file=name)
        except OSError as error:
            log.warning("cannot look after consoles", error=str(error))
        await asyncio.sleep(LOOK)


def trim_all(folder: Path) -> list[str]:
    """The names of those that were too large."""
    trimmed = []
    for path in folder.glob("*.log"):
        try:
            if trim(path):
                trimmed.append(path.name)
        except FileNotFoundError:  # gone since it was listed
            continue
    return trimmed
