"""Files of ours are for our own user only, but for folders that servers of other users have to pass through."""

import errno
import os
import resource
from pathlib import Path

#: All may pass through, only the owner may list: Postgres and QEMU run as other users and are handed exact paths.
PASSABLE = 0o711
#: The umask of programs of others that make files for everybody, such as a guest's root filesystem.
PUBLIC = 0o022


def begin() -> None:
    """From now on what this process makes is for its own user only (files 0600, folders 0700).

    It leaves no core file, nor do its children: secrets are in its memory.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def passable(folder: Path) -> Path:
    """The folder, made where it is missing, as are its parents; what is made lets other users pass through.

    Raises OSError.
    """
    for each in (*reversed(folder.parents), folder):
        try:
            each.mkdir()
        except FileExistsError:
            if each.is_dir():
                continue
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(each)) from None
        each.chmod(PASSABLE)
    return folder
