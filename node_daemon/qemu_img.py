"""Run qemu-img, with a bound on what an evil image can make it use."""

import asyncio

#: Memory in bytes and CPU seconds for one call.
LIMITS = ("prlimit", "--as=2147483648", "--cpu=30")
SECONDS = 60.0


class QemuImgError(Exception):
    """qemu-img would not; the text is its last line."""


async def qemu_img(*arguments: str) -> bytes:
    """Its standard output. Raises QemuImgError; TimeoutError after a minute; OSError when it cannot be run."""
    process = await asyncio.create_subprocess_exec(
        *LIMITS,
        "qemu-img",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, errors = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines()
        raise QemuImgError(lines[-1] if lines else f"qemu-img ended with status {process.returncode}")
    return output
