"""Opens image files that users name: only regular files in allowed folders."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

#: Errors after which a retry may succeed.
MAY_PASS = (errno.EAGAIN, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)
#: A descriptor that names a file or folder, without a right to read it.
PLACE = os.O_PATH | os.O_CLOEXEC


class NotAllowed(Exception):
    """This path may not be used. The text says why, and what to do."""


def open_file(source: str, folders: Sequence[Path]) -> BinaryIO:
    """Open the file for reading. The checks are made on the opened file itself, so later changes of the path do not
    matter.

    The path is opened from its folder on, one name at a time. If the file is replaced meanwhile, the old or the new one
    is opened.

    Raises NotAllowed for an invalid path, a path outside the folders or over a symbolic link, and for a file that is
    not regular; OSError as `open` does.
    """
    try:
        folder, names = _inside(source, folders)
        return _reopen(_walk(folder, names, source))
    except ValueError:  # NUL, or a lone surrogate
        raise NotAllowed("the path has a character that no path can have; give the path of the file") from None


def _inside(source: str, folders: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
    """The allowed folder, and the names of the path below it. Raises NotAllowed."""
    path = Path(source)
    if ".." not in path.parts:
        for folder in folders:
            for name in (folder, folder.resolve()):
                if path.is_relative_to(name) and path != name:
                    return folder, path.relative_to(name).parts
    offered = ", ".join(map(str, folders))
    raise NotAllowed(
        f"{source} is outside the folders that images may come from ({offered}): "
        "copy it there, or add its folder to NEBULA_IMAGE_PATHS"
    )


def _walk(folder: Path, names: Sequence[str], source: str) -> int:
    """An O_PATH descriptor of the regular file at the end of the path.

    Only the folder's own path may contain symbolic links.
    """
    here = os.open(folder, PLACE | os.O_DIRECTORY)
    try:
        for name in names:
            there = os.open(name, PLACE | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = there
            if stat.S_ISLNK(os.fstat(here).st_mode):
                raise NotAllowed(f"{source} leads over a symbolic link: give the path of the file itself")
        if not stat.S_ISREG(os.fstat(here).st_mode):
            raise NotAllowed(f"{source} is not a regular file")
    except BaseException:
        os.close(here)
        raise
    return here


def _reopen(place: int) -> BinaryIO:
    """Open the file of an O_PATH descriptor for reading, and close the descriptor."""
    try:
        return os.fdopen(os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC), "rb", buffering=0)
    finally:
        os.close(place)
