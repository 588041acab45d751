"""What the executor asks of the host's disk space: base images, and the files of each VM.

`images.py` and `disks.py` are the real ones; `simulated_storage.py` stands in for them where nothing is stored.
"""

from pathlib import Path
from typing import Protocol

from domain.contract import ImageSource
from node_daemon.images import BaseImage, untold
from runtime.download import Tell


class ImageStore(Protocol):
    def path(self, source: ImageSource) -> Path:
        """Where the image is, or will be."""
        ...

    async def ensure(self, source: ImageSource, tell: Tell = untold) -> BaseImage:
        """The image, fetched first where it is missing; `tell` hears how far that is. Raises Permanent or Temporary."""
        ...


class DiskStore(Protocol):
    def disk(self, vm: str, number: int = 1) -> Path: ...

    async def make_seed(self, vm: str, url: str) -> Path:
        """A disk with what the data source says at this URL. Raises Permanent or Temporary."""
        ...

    def console(self, vm: str) -> Path: ...

    def has_disk(self, vm: str, number: int = 1) -> bool: ...

    def has_files(self, vm: str) -> bool: ...

    async def ensure(self, vm: str, base: BaseImage, size_gib: int, number: int = 1) -> bool:
        """Make the root disk unless it is there. Whether it was made now. Raises Permanent or Temporary."""
        ...

    async def grow(self, vm: str, size_gib: int, number: int = 1) -> None:
        """Make the root disk of a domain that is off as large as that, unless it is. Raises Permanent or Temporary."""
        ...

    def remove_earlier(self, vm: str, number: int) -> None:
        """Delete the disks of a VM before its `number`-th. Fine when there are none. Called on a thread."""
        ...

    def remove(self, vm: str) -> None:
        """Delete all files of a VM. Fine when there are none. Called on a thread."""
        ...
