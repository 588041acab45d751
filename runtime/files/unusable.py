"""Messages for people about files and folders that cannot be used, instead of the system's error number."""

import errno
from pathlib import Path

from runtime.text.plain import plain

#: Errors for which a retry does not help: somebody has to change the path, its owner, or its disk.
LASTING = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)

_TEXTS = {
    errno.ENOENT: "does not exist",
    errno.EACCES: "cannot be used: this user has no permission there",
    errno.EPERM: "cannot be used: this user has no permission there",
    errno.EROFS: "cannot be written: its disk is read-only",
    errno.EEXIST: "exists already, but something else is needed there",
    errno.ENOTDIR: "cannot be used: a part of the path is not a folder",
    errno.EISDIR: "is a folder, not a file",
    errno.ELOOP: "cannot be used: its symbolic links form a loop",
    errno.ENAMETOOLONG: "cannot be used: the name is too long",
    errno.ENOSPC: "cannot be written: the disk is full",
    errno.EDQUOT: "cannot be written: the disk is full",
}


def unusable(error: OSError) -> bool:
    """Whether the error is about a path that somebody has to correct."""
    return error.filename is not None and error.errno in LASTING


def sentence(error: OSError, path: Path | None = None) -> str:
    """The message about an error, with the path. `path`: for an error that names none."""
    named = error.filename if isinstance(error.filename, str) else path
    text = _TEXTS.get(error.errno or 0) or f"cannot be used: {(error.strerror or str(error)).lower()}"
    return plain(f"{named} {text}", keep="") if named is not None else text
