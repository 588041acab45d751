"""Permissions of our files: private to our user, except folders through which servers of other users have to pass."""

import errno
import os
import resource
from pathlib import Path

#: All users may pass through, only the owner may list. Postgres and QEMU run as other users, and get exact paths.
PASSABLE = 0o711
#: The umask for external programs whose files are for all users, such as a guest's root filesystem.
PUBLIC = 0o022


def begin() -> None:
    """Make new files of this process private to its user (files 0600, folders 0700).

    It also disables core files of this process and its children, because secrets are in its memory.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def passable(folder: Path) -> Path:
    """Make the folder and its parents if they are missing. Other users can pass through those that are made.

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
