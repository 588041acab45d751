"""A disk image judged as a whole: by its header first, then by what QEMU's own tools make of it."""

import asyncio
import json
import os
from typing import BinaryIO

from runtime.images.disk_image import HEAD, Format, Shape, Unusable, look, objection
from runtime.images.qemu_img import READS, QemuImgError, qemu_img


async def inspect(file: BinaryIO, declared: Format | None = None, *, thorough: bool = True) -> Shape:
    """What an open file is, as a disk image: as the `declared` format, or as the one that its bytes tell.

    QEMU never guesses: it is told the format, and is given the open file instead of a name. `thorough` has the tables
    of a qcow2 image checked as well. Raises Unusable; TimeoutError and OSError, which may pass.
    """
    head = await asyncio.to_thread(os.pread, file.fileno(), HEAD, 0)
    shape = look(head, os.fstat(file.fileno()).st_size)
    if declared is not None and shape.format != declared:
        raise Unusable(f"the image is registered as {declared}, but is {shape.format}")
    described = await asked(file, shape.format, "info", "--output=json")
    if (reason := objection(json.loads(described), shape)) is not None:
        raise Unusable(f"QEMU does not see what the image's header says: {reason}")
    if thorough and shape.format == "qcow2":
        await asked(file, shape.format, "check", "-q")
    return shape


async def asked(file: BinaryIO, format_: Format, *command: str) -> bytes:
    """What qemu-img says of the file. Raises Unusable with its words when it has anything against it; TimeoutError,
    OSError.
    """
    name = f"/proc/self/fd/{file.fileno()}"
    try:
        return await qemu_img(*command, "-f", format_, name, files=[file.fileno()], limits=READS)
    except QemuImgError as error:
        said = str(error).replace(name, "the image")
        raise Unusable(f"qemu-img {command[0]} refuses the image: {said}") from error
