"""Files that hold keys: whole or not at all, and readable by their owner only from the first moment on."""

import os
import secrets
from pathlib import Path


def make_once(path: Path, content: bytes) -> None:
    """Write the file unless it is there. Of two processes at once, the first counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = _written(path, content, 0o600)
    try:
        path.hardlink_to(fresh)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    _sync(path.parent)


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put the content in the file's place, in one step."""
    _written(path, content, mode).replace(path)
    _sync(path.parent)


def _written(path: Path, content: bytes, mode: int) -> Path:
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return fresh


def _sync(folder: Path) -> None:
    """Make the folder's entries as durable as its files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
