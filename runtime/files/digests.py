"""Digests of large files."""

import hashlib
from collections.abc import Iterable
from typing import BinaryIO

from runtime.tasks.tasks import in_thread

#: Bytes between two checks for a cancellation, and bytes per read.
PIECE, CHUNK = 64 * 1024**2, 1024**2


async def digests(file: BinaryIO, names: Iterable[str]) -> dict[str, str]:
    """The digests of an open file in hex, by name (sha256, sha512). Raises OSError."""
    making = {name: hashlib.new(name) for name in names}

    def piece() -> bool:
        left = PIECE
        while left > 0 and (chunk := file.read(CHUNK)):
            left -= len(chunk)
            for digest in making.values():
                digest.update(chunk)
        return left <= 0

    file.seek(0)
    while await in_thread(piece):
        pass
    return {name: digest.hexdigest() for name, digest in making.items()}
