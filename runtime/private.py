"""Files of ours are for our own user only, but for folders that servers of other users have to pass through."""

import contextlib
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


def put(file: Path, text: str) -> None:
    """Give the file this content: whole or not at all, and for its owner only from the first moment on.

    A file that has it already is left alone, so that this needs no room. Raises OSError.
    """
    with contextlib.suppress(OSError, ValueError):
        if file.read_text() == text:
            return
    new = file.with_name(f"{file.name}.new")
    try:
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(text)
        new.replace(file)
    except OSError:
        new.unlink(missing_ok=True)
        raise


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
