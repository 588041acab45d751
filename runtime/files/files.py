"""Atomic file writes: a file is written completely or not at all, also if the process or the
machine stops meanwhile.
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path


def put(path: Path, content: str | bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replace the content of the file in one step. `mode`: its permissions from the beginning.

    `durable`: the content also survives a power failure; without it the file may be empty then. A file that already has
    this content, and no more permissions, is not written, so that a full disk does not matter. Raises OSError.
    """
    data = content.encode() if isinstance(content, str) else content
    with contextlib.suppress(OSError):
        if path.read_bytes() == data and not stat.S_IMODE(path.stat().st_mode) & ~mode:
            return
    with contextlib.ExitStack() as undo:
        part = _written(path, data, mode, undo, durable=durable)
        part.replace(path)
        undo.pop_all()
    if durable:
        sync(path.parent)


def put_once(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write the file if it does not exist. If two processes call it concurrently, the first one
    wins. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as undo:
        part = _written(path, content, mode, undo, durable=True)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(part)
    sync(path.parent)


def put_in_place(part: Path, path: Path, mode: int) -> None:
    """Rename a finished file into place, so that it is complete there even after a power failure. Raises OSError."""
    part.chmod(mode)
    sync(part)
    part.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(path: Path, content: bytes, mode: int, undo: contextlib.ExitStack, *, durable: bool) -> Path:
    """Write a new file in the folder of `path`. `undo` removes it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    undo.callback(part.unlink, missing_ok=True)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    return part
