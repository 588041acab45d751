"""Files that people may name: real ones, in the folders that were allowed, and no way around that."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

#: What a host says of a file that may well be there.
MAY_PASS = (errno.EAGAIN, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)


class NotAllowed(Exception):
    """This path may not be named; the text says why, and what would help."""


def opened(source: str, folders: Sequence[Path]) -> BinaryIO:
    """The file, open for reading. Its reader need not trust the path any more, whatever becomes of it.

    Raises NotAllowed for what is no path, for a path outside the folders, one that leads over a symbolic link, and for
    what is no regular file; OSError as `open` does.
    """
    try:
        path = _inside(source, folders)
        _only_regular(path.lstat(), source)
    except ValueError:  # NUL, or a lone surrogate
        raise NotAllowed("a path with such characters names no file") from None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        _only_regular(path.lstat(), source)
        raise
    file = os.fdopen(descriptor, "rb", buffering=0)
    try:
        _only_regular(os.fstat(descriptor), source)
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()) != str(path):
            raise NotAllowed(f"{source} leads over a symbolic link: give the path of the file itself")
    except BaseException:
        file.close()
        raise
    return file


def _inside(source: str, folders: Sequence[Path]) -> Path:
    """The path, with the symbolic links that lead to its allowed folder resolved, and no others."""
    path = Path(source)
    if ".." not in path.parts:
        for folder in folders:
            for name in (folder, folder.resolve()):
                if path.is_relative_to(name) and path != name:
                    return folder.resolve() / path.relative_to(name)
    offered = ", ".join(map(str, folders))
    raise NotAllowed(
        f"{source} is outside the folders that images may come from ({offered}): "
        "put it there, or add its folder to NEBULA_IMAGE_PATHS"
    )


def _only_regular(status: os.stat_result, source: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise NotAllowed(f"{source} is a symbolic link: give the path of the file itself")
    if not stat.S_ISREG(status.st_mode):
        raise NotAllowed(f"{source} is not a regular file")
