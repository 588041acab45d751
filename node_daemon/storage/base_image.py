"""The checks of an image before disks are made from it: its bytes are the registered ones, and its disk is usable."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from domain.contract import ImageSource
from node_daemon.failure import Permanent, Temporary
from runtime.files.digests import digests
from runtime.images.disk_image import Format, Unusable, sectors
from runtime.images.download import Part
from runtime.images.inspection import inspect
from runtime.text.urls import shown

ImageBase = Literal["raw", "source"]
"""The format in which images are stored: always raw, or the format of the source."""


@dataclass(frozen=True)
class BaseImage:
    """An image in the cache: complete, verified, read-only."""

    path: Path
    format: Format
    virtual_bytes: int


def origin(source: ImageSource) -> str:
    """The source of an image in a message for people."""
    return f"the source {shown(source.source)}"


def mismatch(whence: str, what: str) -> Permanent:
    return Permanent("checksum_mismatch", f"{whence} is not the image that was registered: {what}")


async def verify(source: ImageSource, part: Part, resumed: bool, whence: str) -> None:
    """Compare the digests of the source with the bytes on disk. A part that differs is deleted.

    `whence`: the origin of the bytes in a message for people. Raises Permanent (checksum_mismatch); Temporary if the
    download was resumed, because the parts may come from different versions of the file.
    """
    expected = {"sha256": source.sha256.lower()}
    if source.sha512 is not None:
        expected["sha512"] = source.sha512.lower()
    with part.path.open("rb", buffering=0) as file:
        found = await digests(file, expected)
    for name, digest in expected.items():
        if found[name] != digest:
            size = part.size
            part.drop()
            if resumed:
                raise Temporary(
                    f"a resumed download of {whence} has a wrong {name}; it starts again from the beginning"
                )
            raise mismatch(whence, f"{name} of its {size} bytes is {found[name]}, expected {digest}")


async def inspect_part(part: Part, declared: Format, path: Path) -> BaseImage:
    """Inspect a complete download, which will become `path`. If the image is unusable, the part is deleted.

    Raises Permanent (image_invalid), Temporary.
    """
    try:
        return await inspect_file(part.path, declared, path, thorough=True)
    except Permanent:
        part.drop()
        raise


async def inspect_file(file: Path, declared: Format, path: Path, *, thorough: bool) -> BaseImage:
    """Inspect an image file, in the declared format only. Raises Permanent (image_invalid), Temporary."""
    try:
        with file.open("rb", buffering=0) as opened_file:
            shape = await inspect(opened_file, declared, thorough=thorough)
    except Unusable as error:
        raise Permanent("image_invalid", str(error)) from error
    except TimeoutError as error:
        raise Temporary("qemu-img takes too long to inspect the image") from error
    return BaseImage(path=path, format=shape.format, virtual_bytes=shape.virtual_bytes)


def raw_image(path: Path) -> BaseImage:
    """An image that this daemon has stored as a raw file. No guest writes to it, and its contents are not parsed, so
    only its size is checked. Raises Permanent (image_invalid).
    """
    size = path.stat().st_size
    if not sectors(size):
        detail = f"{path.name} on the node is damaged: {size} bytes are no whole number of sectors; delete the file"
        raise Permanent("image_invalid", detail)
    return BaseImage(path=path, format="raw", virtual_bytes=size)
