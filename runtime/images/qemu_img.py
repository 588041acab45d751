"""Run qemu-img, with a bound on what an evil image can make it use.

Where we are root, and the files are foreign, it runs as a user without rights: `nebula-image` where there is one, else
`nobody`. Foreign files are given as open ones, which it has to open again: they have to be readable for that user,
whatever their folder allows. What is named by its path is our own, and is worked on with our own rights.
"""

import asyncio
import contextlib
import errno
import os
import pwd
import shutil
import signal
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from runtime.tasks.tasks import ended

#: Bytes of memory for one call.
MEMORY = 2 * 1024**3
#: Seconds of CPU time from the signal that says it is used up to the one that cannot be missed.
LAST_SECONDS = 5
#: What others end a process with: those who stop a service or a terminal, and a kernel that is out of memory.
FROM_OUTSIDE = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)


#: Users without rights, the first that there is.
USERS = ("nebula-image", "nobody")


class QemuImgError(Exception):
    """qemu-img would not, or was stopped at a limit; the text is what it said last."""


@dataclass(frozen=True)
class Limits:
    """What one call may use."""

    #: seconds of CPU time
    cpu: int = 60
    #: seconds after which it is given up
    seconds: float = 300.0
    #: bytes that a file may have to which it writes; None for any number
    file_bytes: int | None = None


USUAL = Limits()
#: For a call that only looks.
READS = Limits(file_bytes=0)


def unprivileged() -> pwd.struct_passwd | None:
    """The user that qemu-img runs as; None where we have no rights to give up. Raises OSError where there is none."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return found
    raise FileNotFoundError(errno.ENOENT, f"there is no user {' or '.join(USERS)} to run qemu-img as")


def readable(file: BinaryIO) -> bool:
    """Whether qemu-img may open the file again."""
    user = unprivileged()
    if user is None:
        return True
    status = os.fstat(file.fileno())
    if status.st_uid == user.pw_uid:
        return bool(status.st_mode & stat.S_IRUSR)
    return bool(status.st_mode & (stat.S_IRGRP if status.st_gid == user.pw_gid else stat.S_IROTH))


def hand_over(file: BinaryIO) -> None:
    """Let qemu-img write to a file of ours."""
    if (user := unprivileged()) is not None:
        os.fchown(file.fileno(), user.pw_uid, user.pw_gid)


def take_back(file: BinaryIO) -> None:
    """Nobody but us owns the file any more."""
    if unprivileged() is not None:
        os.fchown(file.fileno(), os.geteuid(), os.getegid())


def _without_rights(foreign: bool) -> list[str]:
    """The options of setpriv."""
    user = unprivileged() if foreign else None
    taken = ["--no-new-privs", "--inh-caps=-all"]
    if user is None:
        return taken
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return [*ids, *taken, "--bounding-set=-all"]


async def qemu_img(*arguments: str, files: Sequence[int] = (), limits: Limits = USUAL) -> bytes:
    """Its standard output. `files` are descriptors that it may open as /proc/self/fd/N: of foreign files, for a user
    without rights.

    It has ended when this returns or raises, also for a cancellation, and does not outlive the thread that called this.
    Raises QemuImgError; TimeoutError; OSError when it cannot be run, or is ended from outside.
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
        await ended(asyncio.ensure_future(process.communicate()))  # for asyncio it ends once its pipes are read
        raise
    status = process.returncode or 0
    if -status in FROM_OUTSIDE:
        raise InterruptedError(errno.EINTR, f"qemu-img was ended from outside, by signal {-status}")
    if status != 0:
        raise QemuImgError(_why(status, (errors or output).decode(errors="replace"), limits))
    return output


def _why(status: int, said: str, limits: Limits) -> str:
    """Its last line, in printable characters: an image can put words into it."""
    if status < 0:
        most = f"{limits.cpu} s or {MEMORY >> 30} GiB"
        return f"qemu-img was stopped by signal {-status}: the image asks for more than {most}"
    lines = said.strip().splitlines()
    last = "".join(char if char.isprintable() else "?" for char in lines[-1]) if lines else ""
    return last[:500] or f"qemu-img ended with status {status}"
