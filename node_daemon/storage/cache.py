"""What of the image cache stays on the node's disk, and what makes room for others.

- An image that any disk of this host is based on is never touched, whatever the budget says; nor one that is arriving.
- One that is in the catalogue no more goes as soon as no disk needs it.
- Beyond the budget, and where the disk has no room for what is to come, the least recently used go first; one that
  was just asked for stays for a while, since its first disk may be in the making.
- Files that this daemon did not make are never touched.
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

#: Seconds that an image stays after it was asked for; and that what has arrived of one waits to be continued.
GRACE, STALE = 300.0, 24 * 3600.0

_OURS = re.compile(rf"(?P<key>(?P<digest>{SHA256})\.(?:qcow2|raw))(?P<rest>\.part|\.part\.json|\.converting|\.gone)?")

Bases = Callable[[], set[Path]]
"""The files that disks are based on; raises OSError when one of them cannot be read."""


@dataclass(frozen=True)
class Entry:
    """An image, or what there is of one. `size` is what it takes of the disk: a raw one may have holes."""

    path: Path
    key: str
    digest: str
    size: int
    used_at: float
    whole: bool


def choose(
    entries: Iterable[Entry], *, kept: Collection[str], unwanted: Collection[str], excess: int, now: float
) -> list[Entry]:
    """What goes, so that `excess` bytes are free again where that can be: never the `kept`."""
    free = sorted((entry for entry in entries if entry.key not in kept), key=lambda entry: entry.used_at)
    going = [entry for entry in free if entry.digest in unwanted or (not entry.whole and now - entry.used_at > STALE)]
    excess -= sum(entry.size for entry in going)
    for entry in free:
        if excess <= 0:
            break
        if entry not in going and now - entry.used_at > GRACE:
            going.append(entry)
            excess -= entry.size
    return going


class Cache:
    """The files in one folder. `budget` in bytes; 0 for no limit."""

    def __init__(self, folder: Path, budget: int, bases: Bases) -> None:
        self._folder = folder
        self._budget = budget
        self._bases = bases
        for name in folder.glob("*.gone"):
            if _OURS.fullmatch(name.name):
                name.unlink()

    def entries(self) -> list[Entry]:
        """All images and parts there are."""
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
        """How much there is; nothing that anybody knows of where the folder cannot be read."""
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
        """Take away what has to go, so that `room` bytes more find their place. `busy`: digests of what arrives."""
        try:
            bases = await asyncio.to_thread(self._bases)
        except OSError as error:
            log.warning("the disks cannot be read; no image is removed", error=str(error))
            return
        gone = self._remove(bases, busy, unwanted, room)
        for path in gone:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def _remove(
        self, bases: set[Path], busy: Callable[[str], bool], unwanted: Collection[str], room: int
    ) -> Sequence[Path]:
        """Give what goes another name, at once: whoever asks for an image from here on does not find it any more."""
        entries = self.entries()
        folder = self._folder.resolve()
        kept = {base.name for base in bases if base.parent.resolve() == folder}
        kept |= {entry.key for entry in entries if busy(entry.digest)}
        excess = room - shutil.disk_usage(self._folder).free
        if self._budget:
            excess = max(excess, room + sum(entry.size for entry in entries) - self._budget)
        gone = []
        for entry in choose(entries, kept=kept, unwanted=unwanted, excess=excess, now=time.time()):
            new = entry.path.with_name(f"{entry.key}.gone")
            entry.path.rename(new)
            entry.path.with_name(f"{entry.key}.part.json").unlink(missing_ok=True)
            gone.append(new)
            why = "not in the catalogue" if entry.digest in unwanted else "least recently used"
            log.info("image removed", image=entry.key, bytes=entry.size, whole=entry.whole, why=why)
        return gone


def touch(path: Path) -> None:
    """Note that an image is used now. The note outlives this process."""
    with contextlib.suppress(OSError):
        os.utime(path)
