"""Which images stay in the image cache, and which are removed.

- The backing image of any disk on this host is never removed, whatever the budget; nor is an image that is being
  fetched.
- An image that is no longer in the catalogue is removed as soon as no disk needs it.
- If the cache exceeds its budget, or the disk needs space for a new image, the least recently used images are removed
  first. An image that was used a short time ago stays, because its first disk may not exist yet.
- Files that this daemon did not make are never removed.
"""

import asyncio
import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from domain.contract import ImageCache
from domain.patterns import SHA256
from runtime import logs
from runtime.images.disk_room import free_bytes

log = logs.get(__name__)

#: Seconds for which an image stays after its last use, and seconds for which an incomplete download stays.
GRACE, STALE = 300.0, 24 * 3600.0

_OURS = re.compile(rf"(?P<key>(?P<digest>{SHA256})\.(?:qcow2|raw))(?P<rest>\.part|\.part\.json|\.converting|\.gone)?")

Bases = Callable[[], set[Path]]
"""Returns the backing files of all disks. Raises OSError if a disk cannot be read."""


@dataclass(frozen=True)
class Entry:
    """An image, complete (`whole`) or not. `size`: bytes that it occupies on the disk; a raw image may have holes.

    `used_at`: seconds since 1970.
    """

    path: Path
    key: str
    digest: str
    size: int
    used_at: float
    whole: bool


def choose(
    entries: Iterable[Entry], *, kept: Collection[str], unwanted: Collection[str], excess: int, now: float
) -> list[Entry]:
    """The entries to remove, to free `excess` bytes if that is possible. Entries in `kept` are never chosen."""
    free = sorted((entry for entry in entries if entry.key not in kept), key=lambda entry: entry.used_at)
    chosen = [entry for entry in free if entry.digest in unwanted or (not entry.whole and now - entry.used_at > STALE)]
    excess -= sum(entry.size for entry in chosen)
    for entry in free:
        if excess <= 0:
            break
        if entry not in chosen and now - entry.used_at > GRACE:
            chosen.append(entry)
            excess -= entry.size
    return chosen


class Cache:
    """The image files in one folder. `budget`: bytes; 0 for no limit."""

    def __init__(self, folder: Path, budget: int, bases: Bases) -> None:
        self._folder = folder
        self._budget = budget
        self._bases = bases
        for name in folder.glob("*.gone"):
            if _OURS.fullmatch(name.name):
                name.unlink()

    def entries(self) -> list[Entry]:
        """All images, complete or not. Raises OSError."""
        found = []
        for item in os.scandir(self._folder):
            match = _OURS.fullmatch(item.name)
            if match is None or match["rest"] not in (None, ".part", ".converting"):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = item.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    found.append(
                        Entry(
                            path=Path(item.path),
                            key=match["key"],
                            digest=match["digest"],
                            size=status.st_blocks * 512,
                            used_at=status.st_mtime,
                            whole=match["rest"] is None,
                        )
                    )
        return found

    def use(self) -> ImageCache:
        """Number and size of the images; zero if the folder cannot be read."""
        try:
            entries = self.entries()
        except OSError:
            entries = []
        try:
            free = free_bytes(self._folder)
        except OSError:
            free = None
        return ImageCache(
            images=sum(entry.whole for entry in entries),
            bytes=sum(entry.size for entry in entries),
            budget_bytes=self._budget or None,
            free_bytes=free,
        )

    async def tidy(self, busy: Callable[[str], bool], *, unwanted: Collection[str] = (), room: int = 0) -> None:
        """Remove images, so that `room` bytes are free. `busy`: whether the image with a digest is being fetched."""
        try:
            bases = await asyncio.to_thread(self._bases)
        except OSError as error:
            log.warning("a disk of a VM cannot be read; no image is removed", error=str(error))
            return
        for path in self._remove(bases, busy, unwanted, room):
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def _remove(
        self, bases: set[Path], busy: Callable[[str], bool], unwanted: Collection[str], room: int
    ) -> Sequence[Path]:
        """Rename the images to remove, without waiting in between, so that no later caller finds
        them. The new names.
        """
        entries = self.entries()
        folder = self._folder.resolve()
        kept = {base.name for base in bases if base.parent.resolve() == folder}
        kept |= {entry.key for entry in entries if busy(entry.digest)}
        excess = room - shutil.disk_usage(self._folder).free
        if self._budget:
            excess = max(excess, room + sum(entry.size for entry in entries) - self._budget)
        renamed = []
        for entry in choose(entries, kept=kept, unwanted=unwanted, excess=excess, now=time.time()):
            new = entry.path.with_name(f"{entry.key}.gone")
            entry.path.rename(new)
            entry.path.with_name(f"{entry.key}.part.json").unlink(missing_ok=True)
            renamed.append(new)
            why = "not in the catalogue" if entry.digest in unwanted else "least recently used"
            log.info("image removed", image=entry.key, bytes=entry.size, whole=entry.whole, why=why)
        return renamed


def touch(path: Path) -> None:
    """Record in the file's modification time that an image is used now."""
    with contextlib.suppress(OSError):
        os.utime(path)
