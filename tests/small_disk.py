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


def resize(folder: Path, mib: int) -> None:
    """Another size for a disk that was mounted here."""
    subprocess.run(["mount", "-o", f"remount,size={mib}m", str(folder)], check=True)


def shrink(folder: Path) -> None:
    """Make a disk that was mounted here as small as what is on it, so that it is full."""
    for _ in range(100):
        status = os.statvfs(folder)
        used = max(status.f_blocks - status.f_bfree, 1) * status.f_frsize  # a size of 0 is none
        done = subprocess.run(["mount", "-o", f"remount,size={used}", str(folder)], check=False, capture_output=True)
        if done.returncode == 0:
            return
    raise OSError(f"more is written to {folder} all the time")
