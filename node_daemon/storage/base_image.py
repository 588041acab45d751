"""What a file has to be before disks are made from it: the bytes that were registered, and a disk that may be used."""

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

Kept = Literal["raw", "source"]
"""How images are kept: all of them raw, or each as it comes."""


@dataclass(frozen=True)
class BaseImage:
    """An image in the cache: complete, verified, never written again."""

    path: Path
    format: Format
    virtual_bytes: int


def origin(source: ImageSource) -> str:
    """What is behind its URL or path, for people."""
    return f"the source {shown(source.source)}"


def mismatch(whence: str, what: str) -> Permanent:
    return Permanent("checksum_mismatch", f"{whence} is not the image that was registered: {what}")


async def verify(source: ImageSource, part: Part, resumed: bool, whence: str) -> None:
    """Compare every digest that is given with the bytes on disk. What is wrong is not kept.

    `whence`: what the bytes came from, for people. Raises Permanent (checksum_mismatch); Temporary where they came in
    several goes, which may not fit together.
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
                raise Temporary(f"what was resumed of {whence} does not fit; it is fetched from its beginning")
            raise mismatch(whence, f"{name} of its {size} bytes is {found[name]}, expected {digest}")


async def judged(part: Part, declared: Format, path: Path) -> BaseImage:
    """The finished part as the image it will be. One that may not be used is not kept."""
    try:
        return await inspected(part.path, declared, path, thorough=True)
    except Permanent:
        part.drop()
        raise


async def inspected(file: Path, declared: Format, path: Path, *, thorough: bool) -> BaseImage:
    """The image in a file, taken for nothing but the declared format. Raises Permanent (image_invalid), Temporary."""
    try:
        with file.open("rb", buffering=0) as opened_file:
            shape = await inspect(opened_file, declared, thorough=thorough)
    except Unusable as error:
        raise Permanent("image_invalid", str(error)) from error
    except TimeoutError as error:
        raise Temporary("qemu-img takes too long to look at the image") from error
    return BaseImage(path=path, format=shape.format, virtual_bytes=shape.virtual_bytes)


def converted(path: Path) -> BaseImage:
    """An image that was put here as a raw one, whatever it began as: no guest ever wrote to it, and nothing in it
    counts as a format. Raises Permanent (image_invalid).
    """
    size = path.stat().st_size
    if not sectors(size):
        raise Permanent("image_invalid", f"{path.name} on the node is damaged: {size} bytes are no disk")
    return BaseImage(path=path, format="raw", virtual_bytes=size)
