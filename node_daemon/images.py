"""Base images: fetched once per node, verified before anybody sees them, never half in place."""

import asyncio
import os
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from domain.contract import ImageCache, ImageSource
from node_daemon.cache import Bases, Cache, touch
from node_daemon.failure import Permanent, Temporary, is_full, of_os_error
from node_daemon.files import new_folder, put_in_place
from node_daemon.shared import Shared
from runtime import logs
from runtime.digests import digests
from runtime.disk_image import Format, Unusable
from runtime.download import SILENCE, Check, Gone, Interrupted, Part, Tell, TooLong, copy, download
from runtime.inspection import inspect
from runtime.local_file import NotAllowed, opened
from runtime.tasks import in_thread

log = logs.get(__name__)

#: For all, QEMU's user among them; for writing to nobody.
READ_ONLY = 0o444
URL = ("http://", "https://")

#: What an earlier version of the daemon left when it was killed.
_LEFT = re.compile(r"[0-9a-f]{64}\.(qcow2|raw)\.[0-9a-f]{32}\.part")


@dataclass(frozen=True)
class BaseImage:
    """An image in the cache: complete, verified, never written again."""

    path: Path
    format: Format
    virtual_bytes: int


def untold(done: int, total: int | None) -> None:
    """Nobody wants to know how far it is."""


class Images:
    """The cache in one folder: `<sha256>.<format>`; while they arrive, `<sha256>.<format>.part` and its note.

    What has arrived of a download outlives the process, and the next one goes on from there.
    """

    def __init__(
        self,
        folder: Path,
        sources: Sequence[Path],
        *,
        budget: int = 0,
        bases: Bases = set,
        silence: float = SILENCE,
    ) -> None:
        """`sources`: the folders below which a path may be an image's source. `budget`, `bases`: as `Cache` says."""
        self._folder = new_folder(folder)
        self._sources = sources
        self._cache = Cache(self._folder, budget, bases)
        self._silence = silence
        self._known: dict[str, BaseImage] = {}
        self._fetching: Shared[BaseImage] = Shared()
        for leftover in folder.glob("*.part"):
            if _LEFT.fullmatch(leftover.name):
                leftover.unlink()

    def path(self, source: ImageSource) -> Path:
        """Where the image is, or will be."""
        return self._folder / f"{source.sha256.lower()}.{source.format}"

    async def ensure(self, source: ImageSource, tell: Tell = untold) -> BaseImage:
        """The image, from the cache or else from its source. Whoever asks for the same image shares one fetch.

        Raises Permanent (image_missing, image_not_allowed, checksum_mismatch, image_invalid, disk_full) or Temporary.
        """
        name = self.path(source).name
        if (known := self._known.get(name)) is not None and known.path.exists():
            touch(known.path)
            return known
        return await self._fetching.do(name, lambda told: self._get(name, source, told), tell)

    def use(self) -> ImageCache:
        """How much is kept."""
        return self._cache.use()

    def digests(self) -> set[str]:
        """The sha256 of all that is kept, and of what has arrived of others."""
        return {entry.digest for entry in self._cache.entries()}

    async def tidy(self, unwanted: Collection[str] = ()) -> None:
        """Remove what the catalogue does not want any more and no disk needs, and what is beyond the budget."""
        await self._cache.tidy(self._fetching.__contains__, unwanted=unwanted)

    async def _get(self, name: str, source: ImageSource, tell: Tell) -> BaseImage:
        path = self.path(source)
        if path.exists():
            touch(path)
            image = await inspected(path, source.format, path, thorough=False)
        else:
            image = await self._fetch(source, Part(self._folder / f"{name}.part"), path, tell)
        self._known[name] = image
        return image

    async def _fetch(self, source: ImageSource, part: Part, path: Path, tell: Tell) -> BaseImage:
        """Get the bytes, judge them, and only then give them the name that others look for."""
        started = asyncio.get_running_loop().time()
        await self._cache.tidy(self._fetching.__contains__, room=source.size_bytes - part.size)
        before = part.size
        try:
            resumed = await self._receive(source, part, tell)
            await verify(source, part, resumed)
            image = await judged(part, source.format, path)
            await in_thread(put_in_place, part.path, path, READ_ONLY)
            part.drop()
        except OSError as error:
            raise self._of_os_error(error, source, part) from error
        seconds = round(asyncio.get_running_loop().time() - started, 3)
        log.info(
            "image fetched", image=source.image, sha256=source.sha256, seconds=seconds, resumed=before if resumed else 0
        )
        return image

    async def _receive(self, source: ImageSource, part: Part, tell: Tell) -> bool:
        """Bring the part to its full length. Whether some of it had arrived before."""

        def check(total: int | None) -> None:
            if total is not None and total != source.size_bytes:
                part.drop()
                raise mismatch(source, f"it has {total} bytes, expected {source.size_bytes}")
            self._room_for(source.size_bytes - part.size)

        try:
            if not source.source.startswith(URL):
                await self._copy(source, part, check, tell)
                return False
            resumed = await download(
                source.source, part, tell=tell, check=check, most=source.size_bytes, silence=self._silence
            )
        except Gone as error:
            raise Permanent("image_missing", str(error)) from error
        except TooLong as error:
            part.drop()
            raise mismatch(source, str(error)) from error
        except Interrupted as error:
            raise Temporary(str(error)) from error
        if part.size < source.size_bytes:
            raise Temporary(f"{source.source} ended after {part.size} of {source.size_bytes} bytes")
        return resumed

    async def _copy(self, source: ImageSource, part: Part, check: Check, tell: Tell) -> None:
        try:
            file = await asyncio.to_thread(opened, source.source, self._sources)
        except NotAllowed as error:
            raise Permanent("image_not_allowed", str(error)) from error
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise Permanent("image_missing", f"{source.source}: {error.strerror} on this node") from error
        with file:
            size = os.fstat(file.fileno()).st_size
            part.drop()
            check(size)
            await copy(file.fileno(), part, size, tell)

    def _room_for(self, needed: int) -> None:
        """Raises Permanent (disk_full) when so many bytes more do not fit."""
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise no_room(needed, free)

    def _of_os_error(self, error: OSError, source: ImageSource, part: Part) -> Exception:
        """A disk that is full is not kept full by half an image."""
        if not is_full(error):
            return of_os_error(error)
        needed = source.size_bytes - part.size
        free = shutil.disk_usage(self._folder).free
        part.drop()
        return no_room(max(needed, 1), free)


def no_room(needed: int, free: int) -> Permanent:
    return Permanent(
        "disk_full", f"the image needs {needed} bytes more on the node's disk, which has {free} bytes free"
    )


def mismatch(source: ImageSource, what: str) -> Permanent:
    return Permanent("checksum_mismatch", f"{source.source} is not the image that was registered: {what}")


async def verify(source: ImageSource, part: Part, resumed: bool) -> None:
    """Compare every digest that is given with the bytes on disk. What is wrong is not kept.

    Raises Permanent (checksum_mismatch); Temporary where the bytes came in several goes, which may not fit together.
    """
    expected = {"sha256": source.sha256.lower()}
    if source.sha512 is not None:
        expected["sha512"] = source.sha512.lower()
    with part.path.open("rb", buffering=0) as file:
        found = await digests(file, expected)
    for name, digest in expected.items():
        if found[name] != digest:
            size = part.size
            part.drop()
            if resumed:
                raise Temporary(f"what was resumed of {source.source} does not fit; it is fetched from its beginning")
            raise mismatch(source, f"{name} of its {size} bytes is {found[name]}, expected {digest}")


async def judged(part: Part, declared: Format, path: Path) -> BaseImage:
    """The finished part as the image it will be. One that may not be used is not kept."""
    try:
        return await inspected(part.path, declared, path, thorough=True)
    except Permanent:
        part.drop()
        raise


async def inspected(file: Path, declared: Format, path: Path, *, thorough: bool) -> BaseImage:
    """The image in a file, taken for nothing but the declared format. Raises Permanent (image_invalid), Temporary."""
    try:
        with file.open("rb", buffering=0) as opened_file:
            shape = await inspect(opened_file, declared, thorough=thorough)
    except Unusable as error:
        raise Permanent("image_invalid", str(error)) from error
    except TimeoutError as error:
        raise Temporary("qemu-img takes too long to look at the image") from error
    return BaseImage(path=path, format=shape.format, virtual_bytes=shape.virtual_bytes)
