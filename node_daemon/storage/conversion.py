"""Converts a qcow2 image to a raw one: the same disk in a format that QEMU does not have to parse.

A base image is untrusted input, and the QEMU of each guest that is made from it opens it. A converted image is parsed
only once, by a qemu-img process with limits that ends afterwards. A small qcow2 file can hold a disk of terabytes, so
the maximum size of the raw file is computed before the first byte is written.
"""

import asyncio
import errno
import json
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from runtime.images.disk_image import Unusable
from runtime.images.download import Tell
from runtime.images.inspection import run_qemu_img
from runtime.images.qemu_img import Limits, QemuImgError, hand_over, qemu_img, take_back
from runtime.tasks.tasks import end, in_thread

#: Bytes of one cluster: a cluster with any data counts as a whole.
CLUSTER = 64 * 1024
#: Lowest speed in bytes per second that the limits of qemu-img allow for.
SLOWEST = 16 * 1024**2
#: Seconds between two progress messages.
LOOK = 0.5


class Full(Exception):
    """The file system has not enough free space. `needed`, `free`: bytes."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"{needed} bytes more are needed, {free} are free")
        self.needed = needed
        self.free = free


async def most_bytes(file: BinaryIO, virtual_bytes: int) -> int:
    """The maximum number of bytes that the disk in a qcow2 image needs as a sparse raw file.

    Zeros count if they share a cluster with other data. A cluster that is used several times counts several times.
    Raises Unusable; TimeoutError and OSError, after which a retry may succeed.
    """
    options = ("--output=json", "-O", "qcow2", "-o", f"cluster_size={CLUSTER}")
    found = json.loads(await run_qemu_img(file, "qcow2", "measure", *options))
    tables = int(found["fully-allocated"]) - -(-virtual_bytes // CLUSTER) * CLUSTER
    return int(found["required"]) - tables


async def convert(file: BinaryIO, virtual_bytes: int, to: Path, most: int, tell: Tell) -> None:
    """Write the disk in a qcow2 image to a new sparse file. `most`: the result of `most_bytes`.

    An incomplete file is deleted. Raises Unusable, Full; TimeoutError and OSError, after which a retry may succeed.
    """
    to.unlink(missing_ok=True)
    complete = False
    with to.open("xb", buffering=0) as made:
        try:
            _set_size(made, virtual_bytes)
            hand_over(made)
            await _run_qemu_img(file, made, virtual_bytes, most, tell)
            take_back(made)
            complete = True
        except QemuImgError as error:
            rest, free = max(most - allocated(made), CLUSTER), shutil.disk_usage(to.parent).free
            if rest > free:
                raise Full(rest, free) from error
            raise Unusable(f"qemu-img convert refuses the image: {error}") from error
        finally:
            if not complete:
                await in_thread(to.unlink)


def _set_size(made: BinaryIO, virtual_bytes: int) -> None:
    """Make an empty sparse file as large as the disk. Raises Unusable, OSError."""
    try:
        os.ftruncate(made.fileno(), virtual_bytes)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        what = f"its disk of {virtual_bytes} bytes is larger than a raw file can be on the node's file system"
        raise Unusable(what) from error


async def _run_qemu_img(file: BinaryIO, made: BinaryIO, virtual_bytes: int, most: int, tell: Tell) -> None:
    """Convert one open file to another. Raises QemuImgError, TimeoutError, OSError."""
    descriptors = (file.fileno(), made.fileno())
    names = [f"/proc/self/fd/{descriptor}" for descriptor in descriptors]
    seconds = most // SLOWEST
    limits = Limits(cpu=60 + seconds, seconds=300.0 + seconds, file_bytes=virtual_bytes)
    command = ("convert", "-f", "qcow2", "-O", "raw", "-n", "--target-is-zero", *names)
    work = asyncio.create_task(qemu_img(*command, files=descriptors, limits=limits))
    try:
        while not work.done():
            tell(min(allocated(made), most), most)
            await asyncio.wait({work}, timeout=LOOK)
        work.result()
    finally:
        await end([work])


def allocated(file: BinaryIO) -> int:
    """Bytes that a file occupies on its file system; holes do not count."""
    return os.fstat(file.fileno()).st_blocks * 512
