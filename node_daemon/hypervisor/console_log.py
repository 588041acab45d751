"""The output of a guest's serial console: a log file, and a few older ones in the same folder.

virtlogd writes and rotates them (`<vm>.log` to `<vm>.log.0`, that to `.1`, …) and deletes the oldest; no domain starts
without it. If the host's libvirt is configured to let QEMU write the file (`stdio_handler = "file"`), nothing rotates
it, and a guest could fill the disk. In that case this module rotates it.
"""

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runtime import logs

log = logs.get(__name__)

#: A file with more bytes is rotated (twice virtlogd's limit); so many of its last bytes are kept.
MOST, KEPT = 4 * 1024 * 1024, 2 * 1024 * 1024
#: Seconds between two checks of the sizes.
LOOK = 5.0
PRIVATE = 0o600


def parts(newest: Path) -> list[Path]:
    """The log files of a console, the oldest first."""
    older = [path for path in newest.parent.glob(f"{newest.name}.*") if path.suffix[1:].isdigit()]
    older.sort(key=lambda path: int(path.suffix[1:]), reverse=True)
    return [*older, newest] if newest.exists() else older


@dataclass(frozen=True)
class Piece:
    """A part of a console log. `cursor`: where the next part begins; `more`: whether the next part has data already."""

    data: bytes
    cursor: str
    more: bool


def read(newest: Path, after: str | None, tail: int, most: int) -> Piece | None:
    """At most `most` bytes from the cursor `after` on; without a cursor, from `tail` bytes before the end on.

    None if there is no console log. A cursor is `<inode>-<position>`. If its file was deleted, the oldest bytes are
    returned; if its file was truncated, the bytes from the beginning of that file.
    """
    with contextlib.ExitStack() as stack:
        files = opened(newest, stack)
        if not files:
            return None
        sizes = [os.fstat(file.fileno()).st_size for file in files]
        inodes = [os.fstat(file.fileno()).st_ino for file in files]
        number, offset = 0, 0
        if after is None:
            offset = max(sum(sizes) - tail, 0)
            while number < len(files) - 1 and offset >= sizes[number]:
                offset -= sizes[number]
                number += 1
        else:
            inode, position = (int(part) for part in after.split("-"))
            if inode in inodes:
                number = inodes.index(inode)
                offset = position if position <= sizes[number] else 0
        data = b""
        while True:
            files[number].seek(offset)
            found = files[number].read(most - len(data))
            data += found
            offset += len(found)
            if len(data) >= most or number == len(files) - 1:
                break
            number, offset = number + 1, 0
        more = offset < sizes[number] or any(sizes[number + 1 :])
        return Piece(data, f"{inodes[number]}-{offset}", more)


def opened(newest: Path, stack: contextlib.ExitStack) -> list[BinaryIO]:
    """The open files, the oldest first. The newest is opened first, so that a rotation meanwhile hides no file."""
    files: dict[int, BinaryIO] = {}
    for path in reversed(parts(newest)):
        with contextlib.suppress(FileNotFoundError):
            file = stack.enter_context(path.open("rb"))
            files.setdefault(os.fstat(file.fileno()).st_ino, file)
    return list(reversed(files.values()))


def remove(newest: Path) -> None:
    """Delete the log files of a console. No error if there are none."""
    for path in parts(newest):
        path.unlink(missing_ok=True)


def trim(newest: Path) -> bool:
    """Copy the end of a file that is too large to `.0`, and truncate it. Its writer appends, so it can continue.

    Returns whether the file was too large.
    """
    size = newest.stat().st_size
    if size <= MOST:
        return False
    with newest.open("rb") as file:
        file.seek(size - KEPT)
        end = file.read(KEPT)
    rotated = newest.with_name(f"{newest.name}.0")
    rotated.touch(PRIVATE)
    rotated.write_bytes(end)
    os.truncate(newest, 0)
    return True


async def keep_small(folder: Path) -> None:
    """Limit the size of every console log in a folder. Never returns."""
    while True:
        try:
            for name in await asyncio.to_thread(trim_all, folder):
                log.info("console log rotated", file=name)
        except OSError as error:
            log.warning("cannot limit the size of console logs", error=str(error))
        await asyncio.sleep(LOOK)


def trim_all(folder: Path) -> list[str]:
    """Trim all console logs in a folder; the names of those that were too large."""
    trimmed = []
    for path in folder.glob("*.log"):
        try:
            if trim(path):
                trimmed.append(path.name)
        except FileNotFoundError:  # it was deleted after it was listed
            continue
    return trimmed
