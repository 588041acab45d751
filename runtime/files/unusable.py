"""Files and folders that cannot be used as they are, in a sentence instead of the system's number."""

import errno
from pathlib import Path

from runtime.text.plain import plain

#: What neither waiting nor trying again mends: somebody has to change the path, its owner, or the disk it is on.
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

_SAID = {
    errno.ENOENT: "does not exist",
    errno.EACCES: "cannot be used: this user may not do that there",
    errno.EPERM: "cannot be used: this user may not do that there",
    errno.EROFS: "cannot be written: its disk is read-only",
    errno.EEXIST: "exists already, and is not what is needed there",
    errno.ENOTDIR: "cannot be used: a part of the path is no folder",
    errno.EISDIR: "is a folder, not a file",
    errno.ELOOP: "cannot be used: its links lead in a circle",
    errno.ENAMETOOLONG: "cannot be used: the name is too long",
    errno.ENOSPC: "cannot be written: the disk is full",
    errno.EDQUOT: "cannot be written: the disk is full",
}


def unusable(error: OSError) -> bool:
    """Whether this is about a path that somebody has to put right."""
    return error.filename is not None and error.errno in LASTING


def sentence(error: OSError, path: Path | None = None) -> str:
    """What is wrong, and with which path: `path`, where the error names none."""
    named = error.filename if isinstance(error.filename, str) else path
    said = _SAID.get(error.errno or 0) or f"cannot be used: {(error.strerror or str(error)).lower()}"
    return plain(f"{named} {said}", keep="") if named is not None else said
