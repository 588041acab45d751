"""Wanted documents in little memory: as the difference from another one of the same image."""

import zlib
from typing import NamedTuple

from domain.contract import Wanted

#: Maximum number of images whose documents have one to compare with; and the bits of the window of the compression.
MOST_BASES, WINDOW = 1000, -12


class Packed(NamedTuple):
    """The bytes of a document, compressed with those of another one (`base`) as dictionary."""

    data: bytes
    base: bytes

    @property
    def body(self) -> bytes:
        return zlib.decompressobj(WINDOW, zdict=self.base).decompress(self.data)


class Packer:
    """Packs documents. The first one of each image is the base of the others."""

    def __init__(self) -> None:
        self._bases: dict[str | None, bytes] = {}

    def pack(self, found: Wanted, body: bytes) -> Packed:
        image = found.image.sha256 if found.image is not None else None
        if len(self._bases) > MOST_BASES:
            self._bases.clear()
        base = self._bases.setdefault(image, body)
        compressor = zlib.compressobj(1, zlib.DEFLATED, WINDOW, 5, zdict=base)
        return Packed(compressor.compress(body) + compressor.flush(), base)
