"""Stores the bytes of verified images for nodes, by digest. So an available image does not depend on its source.

- It stores the registered images that nodes get from the platform. Images that are no longer registered are removed.
- Above the budget, or if an import needs the space, the least recently used images are removed first, but never one
  that a VM uses. Nodes then get a removed image from its source.
- A file of this host is stored as a clone or a hard link, not as a copy: it stays when the original name is deleted.
  A file that has another hard link takes no space, and is not removed for lack of space.
"""

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from domain.contract import Fetch
from domain.image import ImagePhase
from domain.patterns import SHA256
from domain.references import Reference
from handlers.world.world import World
from runtime import logs
from runtime.files.files import put_in_place
from runtime.images.disk_room import room

log = logs.get(__name__)

#: The ioctl that makes a file share its blocks with another one, if the file system supports it.
FICLONE = 0x40049409
#: Seconds that a new file may wait for the verdict on its image, and that an image stays after a node used it.
GRACE = 300.0

_DIGEST = re.compile(SHA256)
_NEW = re.compile(rf"{SHA256}\.new")


@dataclass(frozen=True)
class Entry:
    """A stored image. `size`: the bytes that its removal frees."""

    path: Path
    size: int
    used_at: float


class ImageStore:
    """The files of one folder; each has its SHA-256 as its name.

    `budget` in bytes, 0 for no limit; `used`: the digests of the images that VMs use.
    """

    def __init__(self, folder: Path, budget: int = 0, used: Callable[[], Collection[str]] = frozenset) -> None:
        self._folder = folder
        self._budget = budget
        self._used = used
        #: the digests of new files whose images are not available yet, and since when (monotonic clock)
        self._fresh: dict[str, float] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in folder.iterdir():
            if _NEW.fullmatch(path.name):  # left over from a crash
                path.unlink(missing_ok=True)

    def keep(self, file: BinaryIO, sha256: str, ours: bool) -> None:
        """Store an open file with this digest. `ours`: it is our own file, and nobody writes to it any more.

        If that fails, it only writes a warning to the process log.
        """
        size = os.fstat(file.fileno()).st_blocks * 512
        if self._budget and size > self._budget:
            log.warning("image larger than NEBULA_IMAGE_STORE_GIB; nodes get it from its source", sha256=sha256)
            return
        self._fresh[sha256] = time.monotonic()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._put(file, sha256, ours)
        except OSError as error:
            log.warning("image not stored; nodes get it from its source", sha256=sha256, error=str(error))

    def _put(self, file: BinaryIO, sha256: str, ours: bool) -> None:
        path = self._folder / sha256
        if path.exists():
            return
        if not ours and self._cloned(file, path):
            return
        if ours:
            os.fsync(file.fileno())
        with opened_folder(self._folder) as folder:
            with contextlib.suppress(FileExistsError):
                # With dst_dir_fd Python calls linkat, which follows /proc/self/fd to the open file; link would not.
                os.link(f"/proc/self/fd/{file.fileno()}", sha256, dst_dir_fd=folder, follow_symlinks=True)
            os.fsync(folder)

    def _cloned(self, file: BinaryIO, path: Path) -> bool:
        """Whether the file system could clone it. Later writes to the original do not change the clone."""
        new = path.with_name(f"{path.name}.new")
        try:
            with new.open("wb", buffering=0) as made:
                fcntl.ioctl(made.fileno(), FICLONE, file.fileno())
            put_in_place(new, path, 0o600)
        except OSError:
            new.unlink(missing_ok=True)
            return False
        return True

    def open(self, sha256: str) -> BinaryIO | None:
        """The stored image with this digest, open for reading; None if there is none."""
        if not _DIGEST.fullmatch(sha256):
            return None
        try:
            return os.fdopen(os.open(self._folder / sha256, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", 0)
        except FileNotFoundError:
            return None

    def has(self, sha256: str) -> bool:
        """Whether an image is stored."""
        return (self._folder / sha256).exists()

    def has_room(self, size: int) -> bool:
        """Whether `size` more bytes can be stored without removing another image."""
        used = sum(entry.size for entry in self._entries())
        return size <= room(self._folder) and (not self._budget or used + size <= self._budget)

    def touch(self, sha256: str) -> None:
        """Record that a node uses it, in the file's times; not if it has another hard link, which is not our file."""
        path = self._folder / sha256
        with contextlib.suppress(OSError):
            if path.stat().st_nlink == 1:
                os.utime(path)

    def tidy(self, wanted: Collection[str]) -> None:
        """Remove the images that are not `wanted`, and images above the budget."""
        with errors_logged():
            self._tidy(wanted)

    def make_room(self, needed: int) -> None:
        """Remove images until `needed` bytes of the disk are free, if possible."""
        with errors_logged():
            self._evict(needed - room(self._folder))

    def _tidy(self, wanted: Collection[str]) -> None:
        for sha256 in list(self._fresh):
            if sha256 in wanted or time.monotonic() - self._fresh[sha256] > GRACE:
                del self._fresh[sha256]
        total = 0
        for entry in self._entries():
            if entry.path.name in wanted or entry.path.name in self._fresh:
                total += entry.size
            else:
                self._remove(entry, "not registered")
        if self._budget:
            self._evict(total - self._budget)

    def _evict(self, excess: int) -> None:
        if excess <= 0:
            return
        kept = {*self._used(), *self._fresh}
        now = time.time()
        for entry in sorted(self._entries(), key=lambda entry: entry.used_at):
            if excess <= 0:
                return
            if entry.size and entry.path.name not in kept and now - entry.used_at > GRACE:
                self._remove(entry, "least recently used")
                excess -= entry.size

    def _remove(self, entry: Entry, why: str) -> None:
        entry.path.unlink(missing_ok=True)
        log.info("stored image removed", sha256=entry.path.name, bytes=entry.size, why=why)

    def _entries(self) -> list[Entry]:
        found = []
        for item in os.scandir(self._folder):
            if _DIGEST.fullmatch(item.name):
                with contextlib.suppress(FileNotFoundError):
                    status = item.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        size = status.st_blocks * 512 if status.st_nlink == 1 else 0
                        found.append(Entry(Path(item.path), size, status.st_mtime))
        return found


@contextlib.contextmanager
def errors_logged() -> Iterator[None]:
    """Log an OSError instead of raising it: a file that cannot be removed now is removed later."""
    try:
        yield
    except OSError as error:
        log.warning("stored images cannot be removed", error=str(error))


@contextlib.contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def digests_to_keep(world: World) -> set[str]:
    """The digests of the images that nodes get from the platform."""
    return {
        image.sha256
        for image in world.images()
        if image.sha256 is not None
        and image.fetch is Fetch.PLATFORM
        and image.phase in (ImagePhase.VERIFYING, ImagePhase.AVAILABLE)
    }


def digests_in_use(world: World) -> set[str]:
    """The digests of the images that VMs use."""
    in_use = world.references.in_use
    return {image.sha256 for image in world.images() if image.sha256 and in_use(Reference("image", image.id))}
