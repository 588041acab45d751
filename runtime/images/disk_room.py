"""Space on a disk: allocated before it is needed, and a rest that downloads leave free.

What was allocated to a file counts as used for everybody on the host, in whatever process. So no two downloads can
count on the same room.
"""

import ctypes
import errno
import os
import shutil
from pathlib import Path

KEEP_SIZE = 1
#: What downloads leave free: so many bytes, or that share of a small disk.
RESERVE, SHARE = 1024**3, 20
#: What file systems say that cannot take room in advance.
UNABLE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_libc = ctypes.CDLL(None, use_errno=True)


def is_full(error: OSError) -> bool:
    """Whether that is all that is wrong: there is no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def free_bytes(folder: Path) -> int:
    """Bytes of the disk that are free for us. Raises OSError."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def allocate(descriptor: int, length: int) -> None:
    """Take the blocks for the first `length` bytes of a file, whose size stays. Raises OSError (ENOSPC, EDQUOT).

    Where the file system cannot do that, nothing happens.
    """
    if length <= 0:
        return
    call = getattr(_libc, "fallocate64", None) or _libc.fallocate
    while call(descriptor, KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(length)) != 0:
        number = ctypes.get_errno()
        if number in UNABLE:
            return
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def room(folder: Path) -> int:
    """Bytes that a download may use of the disk that holds the folder. Raises OSError."""
    usage = shutil.disk_usage(folder)
    return max(usage.free - min(RESERVE, usage.total // SHARE), 0)
