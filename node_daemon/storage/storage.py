"""The interface of the executor to the storage of the host: base images, and the files of each VM.

`images.py` and `disks.py` implement it on files; `simulated_storage.py` implements it for simulated hosts.
"""

from pathlib import Path
from typing import Protocol

from domain.contract import ImageSource, SeedMedium
from node_daemon.storage.base_image import BaseImage
from node_daemon.storage.images import ignore_progress
from node_daemon.storage.shared import Hear
from runtime.images.disk_image import Format

Series = str
"""The purpose of a disk: `root` for the VM's own disk, `rescue` for a rescue disk. Each series has its own numbers."""


class ImageStore(Protocol):
    def under(self, source: ImageSource, named: Path | None) -> tuple[Path, Format]:
        """The backing file of a disk that was made from the image, and its format. `named`: the backing file that the
        disk itself names.

        Called on a thread.
        """
        ...

    async def ensure_under(self, source: ImageSource, form: Format, hear: Hear = ignore_progress) -> None:
        """Make sure that the file that `under` names exists in that format; fetch it again if it is missing.

        Raises Permanent or Temporary.
        """
        ...

    async def ensure(self, source: ImageSource, hear: Hear = ignore_progress) -> BaseImage:
        """The image, fetched first if it is missing; `hear` gets the progress. Raises Permanent or Temporary."""
        ...


class DiskStore(Protocol):
    def disk(self, vm: str, number: int = 1, series: Series = "root") -> Path: ...

    def base(self, vm: str, number: int = 1, series: Series = "root") -> Path | None:
        """The backing file that a disk names; None if it names none. Raises OSError. Called on a thread."""
        ...

    async def make_seed(self, vm: str, url: str, medium: SeedMedium) -> Path:
        """Make a seed disk for this URL of the data source: with the URL, or with the documents there (`medium`).

        Raises Permanent or Temporary.
        """
        ...

    def console(self, vm: str) -> Path:
        """The newest log file of its console."""
        ...

    def make_folders(self, vm: str) -> None:
        """Make the folders for the files of a VM if they are missing. Raises OSError. Called on a thread."""
        ...

    def has_disk(self, vm: str, number: int = 1, series: Series = "root") -> bool: ...

    def has_seed(self, vm: str) -> bool: ...

    def has_files(self, vm: str) -> bool: ...

    async def ensure(self, vm: str, base: BaseImage, size_gib: int, number: int = 1, series: Series = "root") -> bool:
        """Make a disk if it is missing. Returns whether it was made now. Raises Permanent or Temporary."""
        ...

    async def grow(self, vm: str, size_gib: int, number: int = 1) -> None:
        """Grow the root disk of a domain that is off to that size, if it is smaller. Raises Permanent or Temporary."""
        ...

    def remove_earlier(self, vm: str, number: int, series: Series = "root") -> None:
        """Delete the disks of a series with lower numbers. No error if there are none. Called on a thread."""
        ...

    def remove_seed(self, vm: str) -> None:
        """Delete the seed disk, and all traces of the VM if it has no other file. Called on a thread."""
        ...

    def remove(self, vm: str) -> None:
        """Delete all files of a VM. No error if there are none. Called on a thread."""
        ...
