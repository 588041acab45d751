"""The backing files of the disks of this host, read from the disks themselves. No other record is kept of them."""

import os
import stat
import struct
from pathlib import Path

from runtime.images.disk_image import QCOW

#: The maximum length of the name of a backing file in QEMU, in bytes.
MOST_NAME = 1023


def bases(folder: Path) -> set[Path]:
    """The backing files of all qcow2 disks in a folder and its subfolders. Raises OSError if one cannot be read."""
    found = set()
    for path in folder.rglob("*"):
        if stat.S_ISREG(path.lstat().st_mode) and (base := base_of(path)) is not None:
            found.add(base)
    return found


def base_of(disk: Path) -> Path | None:
    """The backing file that a disk names; None if it names none or is no qcow2 file. Raises OSError."""
    descriptor = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(descriptor, 20, 0)
        if len(head) < 20 or not head.startswith(QCOW):
            return None
        offset, length = struct.unpack_from(">QI", head, 8)
        if offset == 0:
            return None
        name = os.pread(descriptor, min(length, MOST_NAME), offset)
    finally:
        os.close(descriptor)
    return disk.parent / os.fsdecode(name)
