"""A disk of its own, small enough to be filled: for what happens when there is no room, and when there is again."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.images.disk_room import free_bytes

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
MIB = 1024**2


@contextmanager
def mounted(folder: Path, mib: int, mode: int = 0o711) -> Iterator[Path]:
    """An empty file system of so many MiB at this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={mib}m,mode={mode:o}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(ballast: Path, leave: int = 0) -> None:
    """Let a file take all the room there is, but for so many bytes."""
    with ballast.open("ab", buffering=0) as output:
        while (free := free_bytes(ballast.parent) - leave) > 0:
            try:
                output.write(bytes(min(free, MIB)))
            except OSError:
                return
