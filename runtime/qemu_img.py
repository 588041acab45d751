"""Run qemu-img, with a bound on what an evil image can make it use."""

import asyncio
import errno
import shutil
from collections.abc import Sequence

#: Bytes of memory, and seconds of CPU time, for one call.
MEMORY, CPU = 2 * 1024**3, 60
#: Seconds after which a call is given up.
SECONDS = 300.0


class QemuImgError(Exception):
    """qemu-img would not, or was stopped at a limit; the text is what it said last."""


async def qemu_img(*arguments: str, files: Sequence[int] = (), writes: bool = True, bounded: bool = True) -> bytes:
    """Its standard output. `files` are descriptors that it may open as /proc/self/fd/N.

    Not `bounded`: where it reads nothing that came from elsewhere; the bounds cost a process of their own.

    Raises QemuImgError; TimeoutError after five minutes; OSError when it cannot be run.
    """
    if shutil.which("qemu-img") is None:
        raise FileNotFoundError(errno.ENOENT, "qemu-img is not installed")
    limits = [f"--as={MEMORY}", f"--cpu={CPU}", "--core=0", *([] if writes else ["--fsize=0"])]
    process = await asyncio.create_subprocess_exec(
        *(["prlimit", *limits] if bounded else []),
        "qemu-img",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=tuple(files),
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, errors = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    if process.returncode != 0:
        raise QemuImgError(_why(process.returncode or 0, (errors or output).decode(errors="replace")))
    return output


def _why(status: int, said: str) -> str:
    """Its last line, in printable characters: an image can put words into it."""
    if status < 0:
        return f"qemu-img was stopped by signal {-status}: the image asks for more than {CPU} s or {MEMORY >> 30} GiB"
    lines = said.strip().splitlines()
    last = "".join(char if char.isprintable() else "?" for char in lines[-1]) if lines else ""
    return last[:500] or f"qemu-img ended with status {status}"
