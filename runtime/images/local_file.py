"""Files that people may name: real ones, in the folders that were allowed, and no way around that."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

#: What a host says of a file that may well be there.
MAY_PASS = (errno.EAGAIN, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)
#: A descriptor that names a file or folder, without a right to read it.
PLACE = os.O_PATH | os.O_CLOEXEC


class NotAllowed(Exception):
    """This path may not be named; the text says why, and what would help."""


def opened(source: str, folders: Sequence[Path]) -> BinaryIO:
    """The file, open for reading. Its reader need not trust the path any more, whatever becomes of it.

    The path is walked from its folder on, one name at a time, so nothing is judged that is not the file that is opened:
    a file that is replaced meanwhile is the old one or the new one.

    Raises NotAllowed for what is no path, for a path outside the folders, one that leads over a symbolic link, and for
    what is no regular file; OSError as `open` does.
    """
    try:
        folder, names = _inside(source, folders)
        return _reopened(_walked(folder, names, source))
    except ValueError:  # NUL, or a lone surrogate
        raise NotAllowed("a path with such characters names no file") from None


def _inside(source: str, folders: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
    """The allowed folder, and the names that lead from there to the file."""
    path = Path(source)
    if ".." not in path.parts:
        for folder in folders:
            for name in (folder, folder.resolve()):
                if path.is_relative_to(name) and path != name:
                    return folder, path.relative_to(name).parts
    offered = ", ".join(map(str, folders))
    raise NotAllowed(
        f"{source} is outside the folders that images may come from ({offered}): "
        "put it there, or add its folder to NEBULA_IMAGE_PATHS"
    )


def _walked(folder: Path, names: Sequence[str], source: str) -> int:
    """A descriptor that stands for the regular file at the end of the way, and opens nothing yet.

    Only the folder's own path may lead over symbolic links.
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


def _reopened(place: int) -> BinaryIO:
    """What a descriptor stands for, open for reading. The descriptor is used up."""
    try:
        return os.fdopen(os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC), "rb", buffering=0)
    finally:
        os.close(place)
