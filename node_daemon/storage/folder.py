"""The data folder of a node daemon: one process locks it, it has an identity, and QEMU's user can pass through it."""

import contextlib
import os
import re
import uuid
from pathlib import Path
from typing import IO

from runtime import logs
from runtime.files.files import put
from runtime.files.lock import Held, lock
from runtime.files.private import PASSABLE, passable
from runtime.tasks.patience import CannotRun

log = logs.get(__name__)

#: Its group may pass through, only the owner may list.
GROUP_PASSES = 0o710


class Occupied(CannotRun):
    """Another daemon works on this folder."""


def new_folder(path: Path, mode: int = PASSABLE) -> Path:
    """Make the folder and its parents if they are missing. Raises OSError."""
    passable(path).chmod(mode)
    return path


def let_pass(folder: Path, group: int | None) -> None:
    """Let only its owner and this group pass through a folder; None: all users. Raises OSError.

    All users also if the group cannot be set, because we are not root: else QEMU could not open what is in it.
    """
    if group is not None:
        try:
            os.chown(folder, -1, group)
            folder.chmod(GROUP_PASSES)
            return
        except PermissionError:
            log.warning("the group of QEMU's user cannot be set", folder=str(folder), group=group)
    folder.chmod(PASSABLE)


def hold(folder: Path) -> IO[bytes]:
    """Lock the folder until the returned file is closed or the process ends. Raises Occupied."""
    try:
        return lock(folder / "lock")
    except Held as error:
        raise Occupied(
            f"another node daemon works on {folder} (process {error.holder}): stop it, or give this daemon "
            "another folder (NEBULA_HOME, NEBULA_NODE_DATA) and another name (NEBULA_NODE, or --prefix)"
        ) from error


def identity(folder: Path) -> str:
    """The random id of this folder, stored in it for ever. Daemons on the same folder have the same identity."""
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
    """The first folder in `path` that other users cannot pass through; None if there is none."""
    for folder in (*reversed(path.parents), path):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None
