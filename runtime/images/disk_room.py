"""Disk space: it is allocated before it is needed, and downloads leave a reserve free.

Allocated space counts as used for all processes on the host. So two downloads cannot count on the same free space.
"""

import ctypes
import errno
import os
import shutil
from pathlib import Path

KEEP_SIZE = 1
#: The reserve that downloads leave free: RESERVE bytes, or 1/SHARE of a small disk.
RESERVE, SHARE = 1024**3, 20
#: Errors of file systems that cannot allocate space in advance.
UNABLE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_libc = ctypes.CDLL(None, use_errno=True)


def is_full(error: OSError) -> bool:
    """Whether the error means that the disk, or a quota, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that our user can use. Raises OSError."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def allocate(descriptor: int, length: int) -> None:
    """Allocate the blocks for the first `length` bytes of a file. Its size stays. Raises OSError (ENOSPC, EDQUOT).

    If the file system cannot do that, nothing happens.
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
    """Bytes that a download may use on the disk of a folder. Raises OSError."""
    usage = shutil.disk_usage(folder)
    return max(usage.free - min(RESERVE, usage.total // SHARE), 0)
