"""The folder of a node daemon: held by one process, with an identity of its own; QEMU's user can pass through."""

import contextlib
import re
import uuid
from pathlib import Path
from typing import IO

from runtime.files.files import put
from runtime.files.lock import Held, lock
from runtime.files.private import PASSABLE, passable
from runtime.tasks.patience import CannotRun


class Occupied(CannotRun):
    """Another daemon works on this folder."""


def new_folder(path: Path, mode: int = PASSABLE) -> Path:
    """The folder, made with its parents where it is missing."""
    passable(path).chmod(mode)
    return path


def hold(folder: Path) -> IO[bytes]:
    """Hold the folder for this process, until the file returned is closed or the process ends. Raises Occupied."""
    try:
        return lock(folder / "lock")
    except Held as error:
        raise Occupied(
            f"another node daemon works on {folder} (process {error.holder}): end that one, or give "
            "this one another folder (NEBULA_HOME, NEBULA_NODE_DATA) and another name (NEBULA_NODE, or --prefix)"
        ) from error


def identity(folder: Path) -> str:
    """What tells the daemons on this folder from those on another one: random, kept in it for ever."""
    path = folder / "identity"
    with contextlib.suppress(FileNotFoundError):
        found = path.read_text().strip()
        if re.fullmatch(r"[0-9a-f]{32}", found):
            return found
    made = uuid.uuid4().hex
    new_folder(folder)
    put(path, made + "\n")
    return made


def impassable(path: Path) -> Path | None:
    """The first folder on the way to `path` that other users cannot pass through; None when all can."""
    for folder in (*reversed(path.parents), path):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None
