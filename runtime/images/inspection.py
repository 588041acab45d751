"""Inspects a disk image: first its header, then with QEMU's own tools."""

import asyncio
import json
import os
from typing import BinaryIO

from runtime.images.disk_image import HEAD, Format, Shape, Unusable, look, objection
from runtime.images.qemu_img import READS, QemuImgError, qemu_img


async def inspect(file: BinaryIO, declared: Format | None = None, *, thorough: bool = True) -> Shape:
    """Inspect an open file as a disk image. `declared`: its required format; None: the format of its header.

    QEMU gets the format and the open file, so that it never guesses. `thorough`: also check the tables of a qcow2
    image. Raises Unusable; TimeoutError and OSError, after which a retry may succeed.
    """
    head = await asyncio.to_thread(os.pread, file.fileno(), HEAD, 0)
    shape = look(head, os.fstat(file.fileno()).st_size)
    if declared is not None and shape.format != declared:
        raise Unusable(f"the image is registered as {declared}, but is {shape.format}")
    info = await run_qemu_img(file, shape.format, "info", "--output=json")
    if (reason := objection(json.loads(info), shape)) is not None:
        raise Unusable(f"QEMU reads the image differently than its header: {reason}")
    if thorough and shape.format == "qcow2":
        await run_qemu_img(file, shape.format, "check", "-q")
    return shape


async def run_qemu_img(file: BinaryIO, format_: Format, *command: str) -> bytes:
    """The output of a qemu-img command that reads the file. Raises Unusable with qemu-img's message; TimeoutError,
    OSError.
    """
    name = f"/proc/self/fd/{file.fileno()}"
    try:
        return await qemu_img(*command, "-f", format_, name, files=[file.fileno()], limits=READS)
    except QemuImgError as error:
        message = str(error).replace(name, "the image")
        raise Unusable(f"qemu-img {command[0]} refuses the image: {message}") from error
