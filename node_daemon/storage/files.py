"""Files that are there whole or not at all, in folders that QEMU's own user can pass through."""

import contextlib
import fcntl
import os
import re
import uuid
from pathlib import Path
from typing import IO

from runtime.patience import CannotRun
from runtime.private import PASSABLE, passable


class Occupied(CannotRun):
    """Another daemon works on this folder."""


def new_folder(path: Path, mode: int = PASSABLE) -> Path:
    """The folder, made with its parents where it is missing."""
    passable(path).chmod(mode)
    return path


def lock(folder: Path) -> IO[bytes]:
    """Hold the folder for this process, until the file returned is closed or the process ends. Raises Occupied."""
    file = (folder / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise Occupied(
            f"another node daemon works on {folder}: end that one, or give this one another folder (NEBULA_HOME, "
            "NEBULA_NODE_DATA) and another name (NEBULA_NODE, or --prefix)"
        ) from error
    return file


def identity(folder: Path) -> str:
    """What tells the daemons on this folder from those on another one: random, kept in it for ever."""
    path = folder / "identity"
    with contextlib.suppress(FileNotFoundError):
        found = path.read_text().strip()
        if re.fullmatch(r"[0-9a-f]{32}", found):
            return found
    made = uuid.uuid4().hex
    part = new_folder(folder) / f"identity.{made}"
    part.write_text(made + "\n")
    put_in_place(part, path, 0o600)
    return made


def impassable(path: Path) -> Path | None:
    """The first folder on the way to `path` that other users cannot pass through; None when all can."""
    for folder in (*reversed(path.parents), path):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def put_in_place(part: Path, path: Path, mode: int) -> None:
    """Give a finished file its name, so that it is whole under that name even after a power failure."""
    part.chmod(mode)
    sync(part)
    part.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
