"""Runs qemu-img with limits, so that a malicious image cannot use more than them.

If we are root and the files are untrusted, qemu-img runs as an unprivileged user (`runtime/unprivileged.py`). Untrusted
files are passed as descriptors, which qemu-img opens again: that user needs permission to read the file, but not to
access its folder. Files that are named by path are our own, and qemu-img runs as our user for them.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from runtime.tasks.tasks import wait_until_done
from runtime.unprivileged import account

#: Maximum bytes of memory of one call.
MEMORY = 2 * 1024**3
#: Seconds of CPU time between SIGXCPU, when the limit is reached, and SIGKILL.
LAST_SECONDS = 5
#: Signals by which others end a process: a service manager, a terminal, a kernel without memory.
FROM_OUTSIDE = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)


#: Its user.
USER = "nebula-image"


class QemuImgError(Exception):
    """qemu-img failed, or was stopped at a limit. The text is the last line of its output."""


@dataclass(frozen=True)
class Limits:
    """The limits of one call."""

    #: seconds of CPU time
    cpu: int = 60
    #: seconds after which it is stopped
    seconds: float = 300.0
    #: maximum size in bytes of a file that it writes; None: no limit
    file_bytes: int | None = None


USUAL = Limits()
#: For a call that only reads.
READS = Limits(file_bytes=0)


def readable(file: BinaryIO) -> bool:
    """Whether qemu-img's user may read the file."""
    user = account(USER)
    if user is None:
        return True
    status = os.fstat(file.fileno())
    if status.st_uid == user.uid:
        return bool(status.st_mode & stat.S_IRUSR)
    return bool(status.st_mode & (stat.S_IRGRP if status.st_gid == user.gid else stat.S_IROTH))


def hand_over(file: BinaryIO) -> None:
    """Give a file to qemu-img's user, so that it can write to it. Raises OSError."""
    if (user := account(USER)) is not None:
        os.fchown(file.fileno(), user.uid, user.gid)


def take_back(file: BinaryIO) -> None:
    """Make us the owner of the file again. Raises OSError."""
    if account(USER) is not None:
        os.fchown(file.fileno(), os.geteuid(), os.getegid())


def _without_rights(foreign: bool) -> list[str]:
    """The options of setpriv. `foreign`: the files are untrusted."""
    user = account(USER) if foreign else None
    taken = ["--no-new-privs", "--inh-caps=-all"]
    if user is None:
        return taken
    ids = [f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups"]
    return [*ids, *taken, "--bounding-set=-all"]


async def qemu_img(*arguments: str, files: Sequence[int] = (), limits: Limits = USUAL) -> bytes:
    """Run qemu-img, and return its standard output. `files`: descriptors of untrusted files, which it can open as
    /proc/self/fd/N; it then runs as an unprivileged user.

    The process has ended when this returns or raises, also after a cancellation, and ends with the calling thread.
    Raises QemuImgError; TimeoutError; OSError if it cannot be started, or another process ended it.
    """
    if shutil.which("qemu-img") is None:
        raise FileNotFoundError(errno.ENOENT, "qemu-img is not installed")
    bounds = [f"--as={MEMORY}", f"--cpu={limits.cpu}:{limits.cpu + LAST_SECONDS}", "--core=0"]
    if limits.file_bytes is not None:
        bounds.append(f"--fsize={limits.file_bytes}")
    process = await asyncio.create_subprocess_exec(
        *(
            "setpriv",
            *_without_rights(bool(files)),
            "--pdeathsig",
            "KILL",
            "--",
            "prlimit",
            *bounds,
            "qemu-img",
            *arguments,
        ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=tuple(files),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limits.seconds):
            output, errors = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await wait_until_done(asyncio.ensure_future(process.communicate()))  # asyncio requires that its pipes are read
        raise
    status = process.returncode or 0
    if -status in FROM_OUTSIDE:
        raise InterruptedError(errno.EINTR, f"qemu-img was ended from outside, by signal {-status}")
    if status != 0:
        raise QemuImgError(_why(status, (errors or output).decode(errors="replace"), limits))
    return output


def _why(status: int, output: str, limits: Limits) -> str:
    """The last line of its output in printable characters, since an image can put any text into it."""
    if status < 0:
        most = f"{limits.cpu} s or {MEMORY >> 30} GiB"
        return f"qemu-img was stopped by signal {-status}: the image needs more than {most}"
    lines = output.strip().splitlines()
    last = "".join(char if char.isprintable() else "?" for char in lines[-1]) if lines else ""
    return last[:500] or f"qemu-img ended with status {status}"
