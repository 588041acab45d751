"""Images to convert, and where they are kept, for the tests."""

import os
import subprocess
from pathlib import Path

import pytest

from domain.contract import ImageSource
from tests.node_daemon.documents import MIB, source_of

SIZE = 8 * MIB


def image(path: Path, *options: str, data: int = SIZE, hole: int = 0) -> ImageSource:
    """A qcow2 image of noise, and of a hole behind it."""
    raw = path.with_suffix(".in")
    raw.write_bytes(os.urandom(data))
    os.truncate(raw, data + hole)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path)], check=True)
    raw.unlink()
    return source_of(path, "qcow2", data + hole)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "images"
