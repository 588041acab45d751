"""Files that are written completely or not at all, also if the process or the machine stops meanwhile."""

import contextlib
import os
import secrets
import stat
from pathlib import Path


def put(path: Path, content: str | bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Give the file this content, in one step. `mode`: what others may do with it at most, from the first moment on.

    `durable`: it also outlives a power failure, after which it may be empty otherwise. A file that has this content
    already, and no more rights than that, is left alone, so that this needs no room. Raises OSError.
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
    """Write the file unless it is there. Of two processes at once, the first counts. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as undo:
        part = _written(path, content, mode, undo, durable=True)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(part)
    sync(path.parent)


def put_in_place(part: Path, path: Path, mode: int) -> None:
    """Give a finished file its name, so that it is whole under that name even after a power failure."""
    part.chmod(mode)
    sync(part)
    part.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's content, or a folder's entries, outlive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(path: Path, content: bytes, mode: int, undo: contextlib.ExitStack, *, durable: bool) -> Path:
    """A new file beside `path`, which `undo` removes."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    undo.callback(part.unlink, missing_ok=True)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    return part
