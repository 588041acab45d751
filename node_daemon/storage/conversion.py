"""A qcow2 image made a raw one: the same disk, in a file in which there is nothing to parse when a guest runs.

A base image is foreign input, and the QEMU of every guest that is made from it opens it. What was converted has been
parsed by then: once, by a qemu-img under limits that ends when it is done. A small qcow2 can hold a disk of terabytes,
so how much room it takes at the most is counted before the first byte is written.
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
from runtime.images.inspection import asked
from runtime.images.qemu_img import Limits, QemuImgError, hand_over, qemu_img, take_back
from runtime.tasks.tasks import end, in_thread

#: Bytes in which a disk is counted, all of such a piece or nothing.
CLUSTER = 64 * 1024
#: Bytes a second that are decompressed and written at the least.
SLOWEST = 16 * 1024**2
#: Seconds between looks at how far it is.
LOOK = 0.5


class Full(Exception):
    """The file system has no room for the rest, of so many bytes."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"{needed} bytes more are needed, {free} are free")
        self.needed = needed
        self.free = free


async def most_bytes(file: BinaryIO, virtual_bytes: int) -> int:
    """What the disk in a qcow2 image takes of a file system as a sparse raw file, at the most.

    Zeros count where other data shares a cluster with them, and a cluster that is used in several places of the disk
    counts for each of them. Raises Unusable; TimeoutError and OSError, which may pass.
    """
    options = ("--output=json", "-O", "qcow2", "-o", f"cluster_size={CLUSTER}")
    found = json.loads(await asked(file, "qcow2", "measure", *options))
    tables = int(found["fully-allocated"]) - -(-virtual_bytes // CLUSTER) * CLUSTER
    return int(found["required"]) - tables


async def convert(file: BinaryIO, virtual_bytes: int, to: Path, most: int, tell: Tell) -> None:
    """Write the disk in a qcow2 image to a new file, with holes for zeros. `most` is what `most_bytes` says.

    Nothing is left of the file unless it comes to its end. Raises Unusable, Full; TimeoutError and OSError, which may
    pass.
    """
    to.unlink(missing_ok=True)
    whole = False
    with to.open("xb", buffering=0) as made:
        try:
            _stretch(made, virtual_bytes)
            hand_over(made)
            await _copied(file, made, virtual_bytes, most, tell)
            take_back(made)
            whole = True
        except QemuImgError as error:
            rest, free = max(most - allocated(made), CLUSTER), shutil.disk_usage(to.parent).free
            if rest > free:
                raise Full(rest, free) from error
            raise Unusable(f"qemu-img convert refuses the image: {error}") from error
        finally:
            if not whole:
                await in_thread(to.unlink)


def _stretch(made: BinaryIO, virtual_bytes: int) -> None:
    """One hole as large as the disk. Raises Unusable, OSError."""
    try:
        os.ftruncate(made.fileno(), virtual_bytes)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        what = f"its disk of {virtual_bytes} bytes is larger than a raw file can be on the node's file system"
        raise Unusable(what) from error


async def _copied(file: BinaryIO, made: BinaryIO, virtual_bytes: int, most: int, tell: Tell) -> None:
    """Raises QemuImgError, TimeoutError, OSError."""
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
    """Bytes that a file takes of its file system."""
    return os.fstat(file.fileno()).st_blocks * 512
