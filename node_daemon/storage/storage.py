"""What the executor asks of the host's disk space: base images, and the files of each VM.

`images.py` and `disks.py` are the real ones; `simulated_storage.py` stands in for them where nothing is stored.
"""

from pathlib import Path
from typing import Protocol

from domain.contract import ImageSource
from node_daemon.storage.base_image import BaseImage
from node_daemon.storage.images import unheard
from node_daemon.storage.shared import Hear
from runtime.images.disk_image import Format

Series = str
"""What disks of a VM are for, `root` for the one that is its own: those of each series are counted by themselves."""


class ImageStore(Protocol):
    def under(self, source: ImageSource, named: Path | None) -> tuple[Path, Format]:
        """The file under a disk that was made from the image, and its format. `named`: what the disk says its base is.

        Called on a thread.
        """
        ...

    async def ensure_under(self, source: ImageSource, form: Format, hear: Hear = unheard) -> None:
        """Have the file that `under` names in that format; it is fetched again where it is gone. Raises Permanent or
        Temporary.
        """
        ...

    async def ensure(self, source: ImageSource, hear: Hear = unheard) -> BaseImage:
        """The image, fetched first where it is missing; `hear` hears how far that is. Raises Permanent or Temporary."""
        ...


class DiskStore(Protocol):
    def disk(self, vm: str, number: int = 1, series: Series = "root") -> Path: ...

    def base(self, vm: str, number: int = 1, series: Series = "root") -> Path | None:
        """What a disk says it is based on, if anything. Raises OSError. Called on a thread."""
        ...

    async def make_seed(self, vm: str, url: str) -> Path:
        """A disk with what the data source says at this URL. Raises Permanent or Temporary."""
        ...

    def console(self, vm: str) -> Path:
        """The log of its console."""
        ...

    def make_folders(self, vm: str) -> None:
        """Make what the files of a VM are put into, unless it is there. Raises OSError. Called on a thread."""
        ...

    def has_disk(self, vm: str, number: int = 1, series: Series = "root") -> bool: ...

    def has_seed(self, vm: str) -> bool: ...

    def has_files(self, vm: str) -> bool: ...

    async def ensure(self, vm: str, base: BaseImage, size_gib: int, number: int = 1, series: Series = "root") -> bool:
        """Make a disk unless it is there. Whether it was made now. Raises Permanent or Temporary."""
        ...

    async def grow(self, vm: str, size_gib: int, number: int = 1) -> None:
        """Make the root disk of a domain that is off as large as that, unless it is. Raises Permanent or Temporary."""
        ...

    def remove_earlier(self, vm: str, number: int, series: Series = "root") -> None:
        """Delete the disks of a VM before its `number`-th of a series. Fine when there are none. Called on a thread."""
        ...

    def remove(self, vm: str) -> None:
        """Delete all files of a VM. Fine when there are none. Called on a thread."""
        ...
