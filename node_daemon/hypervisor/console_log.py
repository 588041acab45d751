"""What a guest wrote to its serial console: a file, and a few older ones beside it.

virtlogd writes them, moves a full file aside (`<vm>.log` to `<vm>.log.0`, that to `.1`, …) and drops the oldest; no
domain starts without it. Where the host's libvirt is told to let QEMU write by itself (`stdio_handler = "file"`),
nobody moves anything aside, and a guest could fill the disk: there, we do.
"""

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

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


@dataclass(frozen=True)
class Piece:
    """A part of a console. What follows on it is found by `cursor`; `more`: there is some already."""

    data: bytes
    cursor: str
    more: bool


def read(newest: Path, after: str | None, tail: int, most: int) -> Piece | None:
    """At most `most` bytes: what follows on the cursor `after`, or else on what is `tail` bytes before the end.

    None where there is no console. A cursor names a file and a position in it. One that leads nowhere any more, since
    its file was dropped, leads to the oldest bytes there are; one in a file that was emptied, to its beginning.
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
    """The files, the oldest first. Opened the other way round: one moved aside meanwhile is met again, not missed."""
    files: dict[int, BinaryIO] = {}
    for path in reversed(parts(newest)):
        with contextlib.suppress(FileNotFoundError):
            file = stack.enter_context(path.open("rb"))
            files.setdefault(os.fstat(file.fileno()).st_ino, file)
    return list(reversed(files.values()))


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
